// Settings against results: a line for each run across all axes.
"use strict";

(() => {
  const { element } = metakd;
  const chart = metakd.chart("Parallel coordinates of settings and results of the runs shown in the table");
  const set = element("select", { id: "parallel-set", onchange: () => draw() });
  const axes = element("details", { class: "menu" }, element("summary", {}, "Axes"), element("div", {}));
  const hint = element("p", { class: "hint" });
  const keep = element("button", { type: "button", disabled: true, onclick: () => { metakd.brushed = brushed; metakd.refilter(); } }, "Show only the marked runs in the table");
  let chosen = null;
  let brushed = null;
  let members = [];

  const MOST_FIRST = 8;
  const results = () => {
    const shots = metakd.head.sets[Number(set.value)]?.shots[0];
    return { shots, measure: metakd.head.sets[Number(set.value)]?.measure };
  };
  const candidates = () => [
    ...metakd.settings().map((name) => ({ key: `s:${name}`, name, of: (row) => row.settings[name] })),
    { key: "seed", name: "seed", of: (row) => row.seed ?? undefined },
    { key: "parameters", name: "parameters", of: (row) => row.cost?.student?.parameters },
    { key: "latency", name: "latency (ms)", of: (row) => row.cost?.student?.latency_ms },
    { key: "teacher", name: "teacher (%)", of: (row) => scaled(row, "teacher") },
    { key: "student", name: results().measure === "mse" ? "student mse" : "student (%)", of: (row) => scaled(row, "student") },
  ];
  const scaled = (row, model) => {
    const value = row.accuracy?.[model]?.[results().shots]?.[0];
    return value === undefined ? undefined : row.measure === "mse" ? value : 100 * value;
  };

  const axis = (candidate, dim, rows) => {
    const { ink, faint, panel } = metakd.ink();
    const values = rows.map(candidate.of);
    const known = values.filter((value) => value !== undefined);
    const distinct = [...new Set(known)];
    const parts = candidate.name.split(".");
    const base = {
      dim, name: parts.length > 1 ? `${parts.slice(0, -1).join(".")}\n${parts.at(-1)}` : candidate.name,
      nameTextStyle: { color: ink, fontSize: 11.5, lineHeight: 14 }, nameGap: 12, axisLine: { lineStyle: { color: faint } }, axisTick: { lineStyle: { color: faint } },
      axisLabel: { color: ink, fontSize: 11, backgroundColor: panel, padding: [1, 3], borderRadius: 2 },
    };
    const numeric = known.length && known.every((value) => typeof value === "number");
    const measured = !candidate.key.startsWith("s:") && candidate.key !== "seed";
    if (!numeric || (!measured && (distinct.length <= 8 || known.length < values.length))) {
      const order = [...distinct].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }))).map((value) => metakd.text(value));
      const short = (value) => (value.length > 16 ? `${value.slice(0, 15)}…` : value);
      return { ...base, type: "category", data: known.length < values.length ? ["–", ...order] : order, axisLabel: { ...base.axisLabel, formatter: short }, write: (value) => (value === undefined ? "–" : metakd.text(value)) };
    }
    const low = Math.min(...known);
    const high = Math.max(...known);
    const wide = low > 0 && high / low >= 30;
    const label = { ...base.axisLabel, formatter: (value) => metakd.short(value) };
    return { ...base, type: wide ? "log" : "value", scale: true, min: low === high ? low - 1 : wide ? "dataMin" : undefined, max: low === high ? high + 1 : wide ? "dataMax" : undefined, axisLabel: label, write: (value) => (value === undefined ? "-" : value) };
  };

  const alone = (setting) =>
    `Parallel coordinates show how two settings or more go together. ${setting ? `These runs differ in one, ${setting.name}` : "These runs differ in none"}` +
    `: there is nothing to see here that the table does not say. Choose axes to draw it all the same.`;

  const draw = () => {
    const sets = metakd.head.sets.map((one, i) => [String(i), `${one.letter}: ${one.title} (${one.runs} runs)`]);
    metakd.options(set, sets, set.value);
    members = metakd.shown.filter((row) => String(row.set) === set.value);
    const known = candidates();
    const there = known.filter((one) => members.some((row) => one.of(row) !== undefined));
    if (!chosen) chosen = new Set();
    const varying = there.filter((one) => new Set(members.map(one.of)).size > 1);
    const first = [...varying.filter((one) => one.key.startsWith("s:")).slice(0, MOST_FIRST), ...varying.filter((one) => one.key === "parameters")].map((one) => one.key);
    const wanted = new Set(chosen.size ? chosen : first);
    wanted.add("student");
    const shown = there.filter((one) => wanted.has(one.key));
    axes.querySelector("div").replaceChildren(...there.map((one) => element("label", {}, element("input", {
      type: "checkbox", checked: wanted.has(one.key), disabled: one.key === "student",
      onchange: (event) => {
        chosen = new Set(wanted);
        if (event.target.checked) chosen.add(one.key);
        else chosen.delete(one.key);
        draw();
      },
    }), one.name)));
    brushed = null;
    keep.disabled = true;
    // One setting against the result says nothing that the table does not. Filters aside: what
    // they leave of many is worth a look.
    const every = [...metakd.rows.values()].filter((row) => String(row.set) === set.value);
    const settings = known.filter((one) => one.key.startsWith("s:") && new Set(every.map(one.of)).size > 1);
    const few = members.length > 0 && !chosen.size && settings.length < 2;
    chart.place.hidden = few || !members.length;
    hint.textContent = few ? alone(settings[0])
      : members.length
      ? `${members.length} runs of the table, coloured by the student's result. Drag along an axis to mark some; the table's filters do the same from the keyboard.`
      : "No finished run is shown in the table.";
    const made = shown.map((one, dim) => axis(one, dim, members));
    const figures = members.map((row) => scaled(row, "student")).filter((value) => value !== undefined);
    const { ink, faint } = metakd.ink();
    const names = metakd.names(members);
    const error = results().measure === "mse";
    const scale = error ? [...metakd.scale()].reverse() : metakd.scale();
    if (few || !members.length || shown.length < 2) return chart.draw({ series: [] });
    return chart.draw({
      parallelAxis: made.map(({ write, ...rest }) => rest),
      parallel: { left: 70, right: 130, top: 60, bottom: 34, parallelAxisDefault: { areaSelectStyle: { color: faint, borderColor: ink, opacity: 0.25, width: 18 } } },
      visualMap: { type: "continuous", dimension: shown.length - 1, min: Math.min(...figures), max: Math.max(...figures), right: 8, top: "middle", itemHeight: 150, inRange: { color: scale }, textStyle: { color: ink }, precision: 2, calculable: false, text: [error ? "worse" : "better", error ? "better" : "worse"], hoverLink: false },
      tooltip: { trigger: "item", ...metakd.tooltip((what) => [names[what.dataIndex] ?? "", ...shown.map((one) => `${one.name}: ${metakd.text(one.of(members[what.dataIndex])) || "–"}`)]) },
      series: [{ type: "parallel", lineStyle: { width: members.length > 150 ? 1 : 1.7, opacity: members.length > 150 ? 0.35 : 0.7 }, inactiveOpacity: 0.05, activeOpacity: 0.9, emphasis: { lineStyle: { width: 4, opacity: 1 } }, progressive: 0,
        data: members.map((row) => shown.map((one, i) => made[i].write(one.of(row)))) }],
    });
  };

  chart.on("axisareaselected", () => {
    const series = chart.inner().getModel().getSeriesByIndex(0);
    const active = series.getRawIndicesByActiveState("active");
    brushed = active.length ? new Set(active.map((i) => members[i].id)) : null;
    keep.disabled = !brushed;
  });

  metakd.views.parallel = {
    build: (place) => place.append(element("div", { class: "bar" }, element("label", {}, "Tasks ", set), axes, keep), hint, chart.place),
    draw,
    follows: ["shown", "theme"],
  };
})();
