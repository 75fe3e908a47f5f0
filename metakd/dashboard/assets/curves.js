// Learning curves of the chosen runs, one over the other.
"use strict";

(() => {
  const { element } = metakd;
  const chart = metakd.chart("Learning curves of the selected runs; their last values stand in the table below");
  const stage = element("select", { id: "stage", onchange: () => metakd.drawCurves() });
  const metric = element("select", { id: "metric", onchange: () => metakd.drawCurves() });
  const across = element("select", { id: "across", onchange: () => metakd.drawCurves() });
  const smooth = element("input", { id: "smooth", type: "range", min: 0, max: 0.98, step: 0.02, value: 0.6, oninput: () => metakd.drawCurves() });
  const smoothing = element("output", {}, "");
  const log = element("input", { id: "log", type: "checkbox", onchange: () => metakd.drawCurves() });
  const hint = element("p", { class: "hint" });
  const table = element("div", { class: "wide" });
  let asked = 0;

  const FEW = 15;
  metakd.smooth = (points, weight) => {
    if (points.length < FEW) return points; // as rare ones (validation) are

    // Exponential, without the pull of the first value.
    let sum = 0;
    let norm = 0;
    return points.map(([x, y]) => {
      sum = weight * sum + (1 - weight) * y;
      norm = weight * norm + (1 - weight);
      return [x, sum / norm];
    });
  };

  metakd.points = (stages, stage, metric, across) => {
    const one = stages[stage];
    const values = one?.metrics[metric];
    if (!values) return [];
    const begin = one.time[0];
    const scale = metakd.isShare(metric) ? 100 : 1;
    const found = [];
    for (let i = 0; i < values.length; i += 1)
      if (values[i] !== null) found.push([across === "time" ? (one.time[i] - begin) / 60 : one.step[i], scale * values[i]]);
    return found;
  };

  const STAGES = ["pretrain", "contrast", "unlabelled", "warmstart", "meta_train", "finetune"];
  const rank = (name) => STAGES.indexOf(name.replace(/_alone$/, "")) + (name.endsWith("_alone") ? 0.5 : 0);
  const choices = (all) => {
    const stages = [...new Set(all.flatMap((one) => Object.keys(one.stages)))].sort((a, b) => rank(a) - rank(b));
    const before = stage.value || (stages.includes("meta_train") ? "meta_train" : "");
    metakd.options(stage, stages.map((name) => [name, name.replaceAll("_", " ")]), before);
    const metrics = [...new Set(all.flatMap((one) => Object.keys(one.stages[stage.value]?.metrics ?? {})))].sort();
    const usual = ["validate/accuracy", "validate/mse", "student/accuracy", "loss"].find((name) => metrics.includes(name));
    const wanted = metrics.includes(metric.value) ? metric.value : usual;
    metakd.options(metric, metrics.map((name) => [name, metakd.percent(name)]), wanted);
  };

  metakd.drawCurves = async () => {
    const mine = (asked += 1);
    const chosen = metakd.chosenRows();
    const all = (await Promise.all(chosen.map(async (one) => {
      try {
        return { ...one, stages: await metakd.series(one.id) };
      } catch (error) {
        return { ...one, stages: {}, error: String(error.message ?? error) };
      }
    })));
    if (mine !== asked) return; // a later question was asked meanwhile
    choices(all);
    // Validation is a mean over many tasks; it is shown as it was measured.
    smooth.disabled = metric.value.startsWith("validate/");
    const weight = smooth.disabled ? 0 : Number(smooth.value);
    smoothing.textContent = weight ? weight.toFixed(2) : "none";
    const names = metakd.names(all.map((one) => one.row));
    const drawn = all.map((one, i) => ({ ...one, name: names[i], points: metakd.points(one.stages, stage.value, metric.value, across.value) }));
    const there = drawn.filter((one) => one.points.length);
    hint.textContent = !chosen.length
      ? "Select runs in the table to lay their curves over one another."
      : there.length ? "" : "The selected runs have logged nothing of this yet.";
    metakd.drawn = there.map((one) => one.id);
    const series = there.flatMap((one) => {
      const line = (points, further) => ({
        type: "line", name: one.name, data: points, showSymbol: points.length < 40, symbolSize: 5, symbol: "circle",
        sampling: "lttb", lineStyle: { color: metakd.color(one.slot), type: metakd.dash(one.slot), width: 2 },
        itemStyle: { color: metakd.color(one.slot) }, emphasis: { focus: "none" }, ...further,
      });
      if (!weight || one.points.length < FEW) return [line(one.points, {})];
      const pale = { lineStyle: { color: metakd.color(one.slot), width: 1, opacity: 0.28 }, showSymbol: false, silent: true, tooltip: { show: false } };
      return [line(one.points, pale), line(metakd.smooth(one.points, weight), {})];
    });
    const { line } = metakd.ink();
    chart.draw({
      grid: { left: 64, right: 24, top: 30, bottom: 62 },
      xAxis: metakd.axis({ type: "value", name: across.value === "time" ? "minutes since the stage began" : "update", nameLocation: "middle", nameGap: 28, min: "dataMin", max: "dataMax",
        axisLabel: { color: metakd.ink().ink, formatter: (x) => metakd.text(+x.toPrecision(4)) , hideOverlap: true, showMaxLabel: false } }),
      yAxis: metakd.axis({ type: log.checked ? "log" : "value", name: metakd.percent(metric.value), nameLocation: "end", nameTextStyle: { color: metakd.ink().faint, align: "left", padding: [0, 0, 0, -50] }, scale: true }),
      tooltip: { trigger: "item", ...metakd.tooltip((what) => [what.seriesName, `${metakd.percent(metric.value)}: ${metakd.text(+what.value[1].toPrecision(5))}`, across.value === "time" ? `${what.value[0].toFixed(2)} min` : `update ${what.value[0]}`]) },
      dataZoom: [{ type: "inside", filterMode: "none", zoomOnMouseWheel: "ctrl" }, { type: "slider", height: 14, bottom: 6, filterMode: "none", borderColor: line, textStyle: { color: metakd.ink().faint }, brushSelect: false }],
      series,
    });
    const least = /loss|mse|kl|error/.test(metric.value);
    table.replaceChildren(drawn.length ? metakd.plainTable(
      [{ text: "run", name: true }, { text: "points", number: true, spare: true }, { text: "last", number: true }, { text: weight ? "last, smoothed" : "", number: true, spare: true }, { text: least ? "lowest" : "highest", number: true }, { text: "" }],
      drawn.map((one) => {
        const values = one.points.map((point) => point[1]);
        const short = (value) => (value === undefined ? "" : metakd.isShare(metric.value) ? value.toFixed(2) : value.toPrecision(4));
        const last = metakd.smooth(one.points, weight).at(-1)?.[1];
        return [
          [metakd.swatch(one.slot), one.name, one.error ? ` (${one.error})` : ""], String(values.length), short(values.at(-1)), weight ? short(last) : "",
          values.length ? short(values.reduce((a, b) => (least === b < a ? b : a))) : "",
          [element("button", { type: "button", "aria-label": `remove ${one.name}`, onclick: () => metakd.choose([one.id], false) }, "remove")],
        ];
      }),
    ) : "");
  };

  metakd.views.curves = {
    build: (place) => {
      metakd.options(across, [["step", "updates"], ["time", "time"]], "step");
      place.append(
        element("div", { class: "bar" },
          element("label", {}, "Metric ", metric), element("label", {}, "Stage ", stage), element("label", {}, "Over ", across),
          element("label", { title: "validation, and curves of fewer than 15 points, are not smoothed" }, "Smoothing ", smooth, smoothing), element("label", {}, log, "logarithmic")),
        hint, chart.place, table);
    },
    draw: () => metakd.drawCurves(),
    follows: ["chosen", "rows", "theme"],
  };
})();
