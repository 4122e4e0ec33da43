"""Networks and statistics; none of them needs a Trainer."""
