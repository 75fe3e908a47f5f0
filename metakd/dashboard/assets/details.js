// All that is known of the chosen runs, side by side, and where they differ.
"use strict";

(() => {
  const { element } = metakd;
  const only = element("input", { id: "only", type: "checkbox", checked: true, onchange: () => draw() });
  const base = element("select", { id: "baseline", onchange: () => draw() });
  const hint = element("p", { class: "hint" });
  const place = element("div", { class: "wide" });
  const MOST = 8;
  let asked = 0;

  metakd.showDetails = (id) => {
    if (!metakd.isChosen(id) && metakd.chosen.length >= metakd.MOST_CHOSEN) metakd.choose([metakd.chosen.at(-1).id], false);
    metakd.chosen = metakd.chosen.filter((one) => one.id !== id);
    const before = metakd.chosen;
    metakd.chosen = [];
    const slots = new Set(before.map((one) => one.slot));
    let slot = 0;
    while (slots.has(slot)) slot += 1;
    metakd.chosen = [{ id, slot }, ...before];
    metakd.tell("chosen");
    metakd.showView("details");
  };

  const known = new Map();
  const details = async (row) => {
    const version = JSON.stringify([row.status, row.end, row.start]);
    if (known.get(row.id)?.version !== version) known.set(row.id, { version, found: await metakd.source.details(row.id) });
    return known.get(row.id).found;
  };

  const about = (row) => {
    const figure = metakd.headline(row);
    const found = { status: row.status, reason: row.reason, seed: row.seed, tags: row.tags.join(", ") };
    if (metakd.head.sets.length > 1 && row.set !== undefined) found.tasks = `${metakd.head.sets[row.set].letter}: ${metakd.head.sets[row.set].title}`;
    if (figure) found[`student, ${metakd.shots(figure.shots)} ${metakd.unit(figure.measure)}`] = metakd.figure(figure.mean, figure.half, figure.measure);
    if (row.outside) found["outside pre-training"] = row.outside.join(", ");
    if (row.warnings) found["warnings ‡"] = row.warnings.join("\n");
    if (row.start) found.started = metakd.moment(row.start);
    if (row.start && row.end) found.took = metakd.duration(row.end - row.start);
    return found;
  };

  // results.json's shares in percent, as everywhere on this page.
  const inPercent = (results) => {
    const accuracies = Object.keys(results).some((key) => key.endsWith(".accuracy"));
    return Object.fromEntries(Object.entries(results).map(([key, value]) => {
      if (typeof value !== "number") return [key, value];
      const beside = key.replace(/[^.]*$/, "");
      const isPoints = /(^|\.)(difference|ci95)$/.test(key) && results[`${beside}measure`] === "accuracy";
      const share = metakd.isShare(key) || isPoints ||
        (key.endsWith(".ci95") && results[`${beside}accuracy`] !== undefined) ||
        (key.endsWith(".validated") && accuracies);
      return [key, share ? `${(100 * value).toFixed(2)} ${isPoints ? "points" : "%"}` : value];
    }));
  };

  const part = (title, columns, always) => {
    const keys = [...new Set(columns.flatMap((one) => Object.keys(one ?? {})))];
    const lines = [];
    for (const key of keys) {
      const values = columns.map((one) => one?.[key]);
      const differs = new Set(values.map((value) => JSON.stringify(value))).size > 1;
      if (values.every((value) => value === undefined || value === null || value === "")) continue;
      if (!differs && !always && only.checked && columns.length > 1) continue;
      lines.push(element("tr", { class: differs && columns.length > 1 ? "differs" : "" }, element("th", { scope: "row" }, key),
        ...values.map((value) => element("td", {}, value === undefined || value === null ? "–" : metakd.text(value)))));
    }
    if (!lines.length) lines.push(element("tr", {}, element("td", { colSpan: columns.length + 1 }, "no differences")));
    return [element("tr", { class: "part" }, element("th", { colSpan: columns.length + 1, scope: "colgroup" }, title)), ...lines];
  };

  const differenceTable = async (chosen, names) => {
    const finished = chosen.filter((one) => one.row.set !== undefined);
    const allowed = metakd.source.baselines;
    const choices = (allowed ? allowed.map((id) => metakd.rows.get(id)).filter(Boolean) : finished.map((one) => one.row));
    metakd.options(base, choices.map((row) => [row.id, row.path]), base.value);
    if (!base.value || !finished.some((one) => one.id !== base.value)) return [];
    const found = await metakd.source.differences(base.value, finished.map((one) => one.id));
    const name = (id) => names[chosen.findIndex((one) => one.id === id)] ?? metakd.rows.get(id)?.path ?? "";
    const shown = found.pairs.filter((pair) => metakd.isChosen(pair.run));
    const rows = shown.map((pair) => {
      const [scale, digits, unit] = pair.measure === "mse" ? [1, 4, ""] : [100, 2, " points"];
      const sign = pair.difference >= 0 ? "+" : "−";
      return [name(pair.run), `${sign}${Math.abs(scale * pair.difference).toFixed(digits)} ± ${(scale * pair.ci95_adjusted).toFixed(digits)}${unit}`, metakd.shots(pair.shots), String(pair.tasks), metakd.probability(pair.p_adjusted)];
    });
    const apart = found.apart.filter((one) => metakd.isChosen(one.run)).map((one) => element("p", { class: "hint" }, `${name(one.run)}: not comparable: ${one.reason}`));
    return [
      element("h3", {}, `Difference to ${metakd.rows.get(base.value)?.path ?? ""} on the same tasks`),
      ...(rows.length ? [metakd.plainTable([{ text: "run" }, { text: "student: difference", number: true }, { text: "shots", number: true }, { text: "tasks", number: true }, { text: found.pairs.length > 1 ? `p (± and p corrected for ${found.pairs.length})` : "p", number: true }], rows)] : []),
      ...apart,
    ];
  };

  const draw = async () => {
    const mine = (asked += 1);
    const all = metakd.chosenRows();
    const chosen = all.slice(0, MOST);
    hint.textContent = !all.length ? "Select runs in the table, or activate a run's name." : all.length > MOST ? `The first ${MOST} of ${all.length} selected runs.` : "";
    if (!chosen.length) return place.replaceChildren();
    try {
      const found = await Promise.all(chosen.map((one) => details(one.row)));
      const names = metakd.names(chosen.map((one) => one.row));
      const differences = await differenceTable(chosen, names);
      if (mine !== asked) return;
      place.replaceChildren(...differences,
        element("table", { class: "plain" },
          element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "run"), ...chosen.map((one) =>
            element("th", { scope: "col" }, metakd.swatch(one.slot), one.row.path)))),
          element("tbody", {},
            ...part("Run", chosen.map((one) => about(one.row)), true),
            ...part("Settings", found.map((one) => one.settings)),
            ...part("Results", found.map((one) => inPercent(one.results))),
            ...part("run.json", found.map((one) => one.info)))));
    } catch (error) {
      hint.textContent = String(error.message ?? error);
    }
  };

  metakd.views.details = {
    build: (view) => view.append(element("div", { class: "bar" }, element("label", {}, only, "only what differs"), element("label", {}, "Baseline ", base)), hint, place),
    draw,
    follows: ["chosen", "rows"],
  };
})();
