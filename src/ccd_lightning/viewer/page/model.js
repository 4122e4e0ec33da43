// What follows from scores, labels and a threshold; no page is needed for it.

export const RESULTS = {
  tp: "✓ detected", fn: "✗ missed", fp: "! false alarm", tn: "✓ cleared",
  abnormal: "abnormal", normal: "normal",
};
export const TERMS = {
  tp: "detected (true positive)", fn: "missed (false negative)",
  fp: "false alarm (false positive)", tn: "correctly cleared (true negative)",
  abnormal: "called abnormal", normal: "called normal",
};
const GOOD = "good";

// An image is called abnormal when its score is above the threshold, as everywhere in the project.
export function resultOf(results, index, threshold) {
  const above = results.scores[index] > threshold;
  if (!results.labelled) return above ? "abnormal" : "normal";
  if (results.labels[index] === 1) return above ? "tp" : "fn";
  return above ? "fp" : "tn";
}

export function countResults(results, threshold) {
  const counts = results.labelled ? {tp: 0, fn: 0, fp: 0, tn: 0} : {abnormal: 0, normal: 0};
  for (let index = 0; index < results.scores.length; index++) counts[resultOf(results, index, threshold)]++;
  return counts;
}

// A share in percent with one decimal, or why there is none.
export function share(part, whole, none) {
  return whole ? `${(100 * part / whole).toFixed(1)}%` : none;
}

export function kindOf(results, index) {
  return results.kinds[index] || (results.labels[index] === 1 ? "abnormal" : results.labelled ? GOOD : "");
}

export function kindsOf(results) {
  const counts = new Map();
  results.scores.forEach((_, index) => {
    const kind = kindOf(results, index);
    counts.set(kind, (counts.get(kind) || 0) + 1);
  });
  return [...counts].sort(([one], [other]) => (other === GOOD) - (one === GOOD) || (one < other ? -1 : 1));
}

// The indices of all images in an order; ties by name.
export function order(results, sort) {
  const {scores, names} = results, indices = [...scores.keys()];
  const byName = (a, b) => names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b;
  const sign = sort === "high" ? -1 : 1;
  return indices.sort(sort === "name" ? byName : (a, b) => sign * (scores[a] - scores[b]) || byName(a, b));
}

// Those of the ordered images that a filter leaves; "" leaves all.
export function filter(results, ordered, {kind, result, threshold, chosen}) {
  return ordered.filter((index) =>
    (kind === "" || kindOf(results, index) === kind.slice(1))
    && (result === "" || (result === "chosen" ? chosen.has(index) : resultOf(results, index, threshold) === result)));
}

// The range of the threshold's slider: from where all are called abnormal to where none is.
export function rangeOf(results) {
  let low = Infinity, high = -Infinity;
  for (const score of results.scores) { low = Math.min(low, score); high = Math.max(high, score); }
  const margin = (high - low || Math.abs(high) || 1) / 100;
  return [low - margin, high + margin];
}

// Counts of scores in equal bins over a range: [normal, abnormal].
export function histogram(results, [low, high], bins) {
  const counts = [new Array(bins).fill(0), new Array(bins).fill(0)];
  results.scores.forEach((score, index) => {
    const bin = Math.min(bins - 1, Math.floor(bins * (score - low) / (high - low)));
    counts[results.labels[index] === 1 ? 1 : 0][bin]++;
  });
  return counts;
}

// A bit for each image, as `exports.chosen_rows` reads them.
export function pack(chosen, count) {
  const bytes = new Uint8Array(Math.ceil(count / 8));
  for (const index of chosen) bytes[index >> 3] |= 1 << (index & 7);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function short(value) {
  const text = value.toPrecision(4);
  return text.includes("e") ? Number(text).toString() : text;
}
