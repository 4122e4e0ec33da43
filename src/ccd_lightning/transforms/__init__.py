"""Weak views, strong augmentation families and patches."""
