// Numbers and words as people read them.
"use strict";

metakd.text = (value) => {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(Number.isInteger(value) || Math.abs(value) >= 1e5 ? Math.round(value) : +value.toPrecision(6));
  return String(value);
};

// Accuracies are shown in percent wherever they come from; files hold shares from 0 to 1.
metakd.isShare = (name) => /(^|[/._])(accuracy|top1|top5|agreement|discriminator_accuracy)$/.test(name);
metakd.percent = (name) => (metakd.isShare(name) ? `${name} (%)` : name);

metakd.whole = (value) => Math.round(value).toLocaleString("en-US");

metakd.figure = (value, half, measure) => {
  if (value === undefined || value === null) return "";
  const [scale, digits] = measure === "mse" ? [1, 4] : [100, 2];
  const text = (scale * value).toFixed(digits);
  return half === undefined || half === null ? text : `${text} ± ${(scale * half).toFixed(digits)}`;
};

// 0 stands for all training images of a whole dataset.
metakd.shots = (k) => (Number(k) === 0 ? "top-1" : `${k}-shot`);

metakd.unit = (measure) => (measure === "mse" ? "mean squared error" : "accuracy (%)");

metakd.short = (value) => {
  const size = Math.abs(value);
  for (const [limit, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= limit) return `${+(value / limit).toPrecision(3)} ${sign}`;
  return String(+value.toPrecision(3));
};

metakd.duration = (seconds) => {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
};

metakd.moment = (seconds) => {
  const date = new Date(seconds * 1000);
  const two = (n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
};

metakd.probability = (p) => (p < 1e-4 ? "< 0.0001" : p < 0.001 ? p.toFixed(4) : p < 0.1 ? p.toFixed(3) : p.toFixed(2));

// Mean and standard deviation of what is known.
metakd.spread = (values) => {
  const known = values.filter((value) => typeof value === "number");
  const n = known.length;
  if (!n) return null;
  const mean = known.reduce((a, b) => a + b, 0) / n;
  const deviation = n > 1 ? Math.sqrt(known.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1)) : null;
  return { n, mean, deviation };
};
