// What a student reaches against what it costs, and the front that nobody beats.
"use strict";

(() => {
  const { element } = metakd;
  const chart = metakd.chart("Accuracy against cost of the runs shown in the table; the front stands in the table below");
  const set = element("select", { id: "cost-set", onchange: () => draw() });
  const cost = element("select", { id: "cost-of", onchange: () => draw() });
  const model = element("select", { id: "cost-model", onchange: () => draw() });
  const by = element("select", { id: "cost-by", onchange: () => draw() });
  const log = element("input", { type: "checkbox", onchange: () => draw() });
  const hint = element("p", { class: "hint" });
  const table = element("div", { class: "wide" });
  const COSTS = [["parameters", "parameters"], ["macs", "multiply-adds"], ["latency_ms", "latency (ms)"],
    ["task_macs", "multiply-adds of a task"], ["task_latency_ms", "latency of a task (ms)"], ["bytes", "bytes"]];
  const SHAPES = ["circle", "rect", "triangle", "diamond", "roundRect"];

  // At least as good as every other one that costs no more. Costs that are no further apart than
  // the sum of their spreads count as equal.
  metakd.front = (points) => {
    if (points.some((point) => point.spread)) {
      const beats = (one, other) => {
        const room = one.spread + other.spread;
        const cheaper = other.cost - one.cost > room;
        const equal = Math.abs(other.cost - one.cost) <= room;
        return (cheaper && one.good >= other.good) || (equal && one.good > other.good);
      };
      return points.filter((point) => !points.some((other) => beats(other, point))).sort((a, b) => a.cost - b.cost);
    }
    const order = [...points].sort((a, b) => a.cost - b.cost || b.good - a.good);
    let best = null;
    return order.filter((point) => {
      if (best === null || point.good > best.good || (point.good === best.good && point.cost === best.cost)) {
        best = point;
        return true;
      }
      return false;
    });
  };

  const draw = () => {
    metakd.options(set, metakd.head.sets.map((one, i) => [String(i), `${one.letter}: ${one.title} (${one.runs} runs)`]), set.value);
    metakd.options(cost, COSTS, cost.value);
    metakd.options(model, [["student", "student"], ["compressed", "compressed"], ["student_alone", "student alone"], ["teacher", "teacher"]], model.value);
    const names = ["", ...metakd.settings(), "name"];
    metakd.options(by, names.map((name) => [name, name || "nothing"]), by.value || (metakd.head.settings.includes("algorithm") ? "algorithm" : ""));
    const one = metakd.head.sets[Number(set.value)];
    const measure = one?.measure ?? "accuracy";
    const shots = one?.shots[0];
    const scale = measure === "mse" ? 1 : 100;
    const points = metakd.shown.filter((row) => String(row.set) === set.value).map((row) => {
      const figure = row.accuracy?.[model.value]?.[shots];
      const spent = row.cost?.[model.value]?.[cost.value];
      if (!figure || spent === undefined) return null;
      const value = scale * figure[0];
      const spread = (cost.value === "latency_ms" && row.cost[model.value].latency_ms_spread) || 0;
      return { row, cost: spent, spread, value, half: figure[1] === null || figure[1] === undefined ? 0 : scale * figure[1], good: measure === "mse" ? -value : value, of: by.value ? metakd.text(metakd.value(row, by.value)) || "–" : "runs" };
    }).filter(Boolean);
    const machines = new Set(points.map((point) => point.row.machine));
    const tasks = new Set(points.map((point) => point.row.shots));
    const elsewhere = cost.value.endsWith("latency_ms") && machines.size > 1;
    const apart = elsewhere || (cost.value.startsWith("task_") && tasks.size > 1);
    const front = apart ? [] : metakd.front(points);
    hint.textContent = !points.length ? "No finished run with such figures is shown in the table."
      : elsewhere ? `Latencies were measured on ${machines.size} different machines, so there is no front over them.`
      : apart ? "Costs of a task are of tasks of different shots, so there is no front over them."
      : `${points.length} runs of the table; the line is the front: no other one is better at that cost or a lower one.${points.some((point) => point.spread) ? " Latencies within their measured spread count as equal." : ""} Bars are 95 % intervals over tasks.`;
    const labels = metakd.names(points.map((point) => point.row));
    points.forEach((point, i) => { point.label = labels[i]; });
    const groups = [...new Set(points.map((point) => point.of))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const words = COSTS.find(([key]) => key === cost.value)[1];
    const { ink, faint, line } = metakd.ink();
    const bar = (slot) => (_, api) => {
      const top = api.coord([api.value(0), api.value(2)]);
      const bottom = api.coord([api.value(0), api.value(3)]);
      return { type: "line", shape: { x1: top[0], y1: top[1], x2: bottom[0], y2: bottom[1] }, style: { stroke: metakd.color(slot), lineWidth: 1, opacity: 0.5 }, silent: true };
    };
    chart.draw({
      grid: { left: 64, right: 24, top: 56, bottom: 52 },
      legend: { top: 2, left: 0, type: "scroll", data: by.value ? groups.map((name, slot) => ({ name, icon: SHAPES[slot % SHAPES.length] })) : [], itemWidth: 12, itemHeight: 10, textStyle: { color: ink }, pageTextStyle: { color: ink }, pageIconColor: ink, pageIconInactiveColor: line },
      xAxis: metakd.axis({ type: log.checked ? "log" : "value", name: words, nameLocation: "middle", nameGap: 28, scale: true, splitLine: { show: false }, axisLabel: { color: ink, formatter: metakd.short, hideOverlap: true } }),
      yAxis: metakd.axis({ type: "value", name: `${model.selectedOptions[0].text}, ${metakd.unit(measure)}`, scale: true, nameTextStyle: { color: faint, align: "left", padding: [0, 0, 0, -50] } }),
      tooltip: { trigger: "item", ...metakd.tooltip((what) => {
        const point = points[what.data?.[4]];
        return point ? [point.label, `${metakd.figure(point.value / scale, point.half / scale, measure)}${measure === "mse" ? "" : " %"}`, `${metakd.text(point.cost)} ${words}`, point.row.path] : [""];
      }) },
      series: [
        ...groups.flatMap((group, slot) => {
          const data = points.map((point, i) => [point.cost, point.value, point.value + point.half, point.value - point.half, i]).filter(([, , , , i]) => points[i].of === group);
          return [
            { type: "custom", name: group, renderItem: bar(slot), data, encode: { x: 0, y: [2, 3] }, silent: true, itemStyle: { color: metakd.color(slot) }, z: 1 },
            { type: "scatter", name: group, data, symbol: SHAPES[slot % SHAPES.length], symbolSize: points.length > 150 ? 7 : 11, itemStyle: { color: metakd.color(slot), opacity: 0.85 }, encode: { x: 0, y: 1 }, z: 3 },
          ];
        }),
        { type: "line", name: "front", step: "end", data: front.map((point) => [point.cost, point.value]), showSymbol: false, silent: true, lineStyle: { color: ink, width: 1.5, type: "dashed" }, z: 2, tooltip: { show: false } },
      ],
    });
    table.replaceChildren(front.length ? element("h3", {}, "On the front") : "", front.length ? metakd.plainTable(
      [{ text: "run" }, { text: words, number: true }, { text: metakd.unit(measure), number: true }],
      front.map((point) => [point.label, metakd.text(point.cost).replace(/\B(?=(\d{3})+(?!\d)(?<!\.\d*))/g, ","), metakd.figure(point.value / scale, point.half / scale, measure)]),
    ) : "");
  };

  metakd.views.costs = {
    build: (place) => place.append(element("div", { class: "bar" },
      element("label", {}, "Tasks ", set), element("label", {}, "Cost ", cost), element("label", {}, "Model ", model),
      element("label", {}, "Colour by ", by), element("label", {}, log, "logarithmic")), hint, chart.place, table),
    draw,
    follows: ["shown", "theme"],
  };
})();
