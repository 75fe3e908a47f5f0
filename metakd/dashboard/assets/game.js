// How generator, discriminator, teacher and student fared with each other.
"use strict";

(() => {
  const { element } = metakd;
  const hint = element("p", { class: "hint" });
  const find = element("button", { type: "button", onclick: () => metakd.choose(players().map((row) => row.id), true) }, "Select runs with a game");
  const legend = element("p", {});
  const panels = element("div", { class: "panels" });
  const PANELS = [
    ["discriminator's accuracy (%)", ["adversarial/discriminator_accuracy"]],
    ["losses: discriminator, generator (dashed)", ["adversarial/discriminator_loss", "adversarial/generator_loss"]],
    ["generator's loss", ["adversarial/loss"]],
    ["accuracy (%): student, teacher (dashed)", ["student/accuracy", "teacher/accuracy"]],
    ["agreement of teacher and student (%)", ["adversarial/agreement"]],
    ["divergence (KL, nats)", ["adversarial/kl"]],
    ["norm and spread (dashed) of the offsets", ["adversarial/offset_norm", "adversarial/offset_spread"]],
  ];
  const STAGE = "meta_train";
  let charts = new Map();
  let asked = 0;

  const players = () => [...metakd.rows.values()].filter((row) =>
    row.figures.includes("adversarial_game.png") || row.settings.algorithm === "adversarial");

  const draw = async () => {
    const mine = (asked += 1);
    find.hidden = !players().length;
    const all = [];
    for (const one of metakd.chosenRows()) {
      const stages = await metakd.series(one.id).catch(() => ({}));
      if (Object.keys(stages[STAGE]?.metrics ?? {}).some((name) => name.startsWith("adversarial/"))) all.push({ ...one, stages });
    }
    if (mine !== asked) return;
    hint.textContent = all.length ? "" : players().length
      ? "None of the selected runs has a game." : "No run here was trained with algorithm=adversarial.";
    const names = metakd.names(all.map((one) => one.row));
    legend.replaceChildren(...all.flatMap((one, i) => [metakd.swatch(one.slot), element("span", {}, `${names[i]}   `)]));
    const logged = new Set(all.flatMap((one) => Object.keys(one.stages[STAGE].metrics)));
    const wanted = PANELS.filter(([, metrics]) => metrics.some((name) => logged.has(name)))
      .filter(([title]) => title !== "generator's loss" || !logged.has("adversarial/generator_loss"));
    const places = wanted.map(([title, metrics]) => {
      if (!charts.has(title)) charts.set(title, metakd.chart(`${title} over the updates`));
      return [title, metrics, charts.get(title)];
    });
    panels.replaceChildren(...places.map(([title, , chart]) => element("div", {}, element("h3", {}, title), chart.place)));
    for (const [, metrics, chart] of places)
      chart.draw({
        grid: { left: 52, right: 14, top: 14, bottom: 38 },
        xAxis: metakd.axis({ type: "value", name: "update", nameLocation: "middle", nameGap: 24, splitLine: { show: false }, max: "dataMax" }),
        yAxis: metakd.axis({ type: "value", scale: true }),
        tooltip: { trigger: "item", ...metakd.tooltip((what) => [what.seriesName, metakd.text(+what.value[1].toPrecision(4)), `update ${what.value[0]}`]) },
        series: all.flatMap((one, i) => metrics.map((metric, nth) => ({
          type: "line", name: `${names[i]}: ${metric}`, data: metakd.smooth(metakd.points(one.stages, STAGE, metric, "step"), 0.5), symbol: "circle", symbolSize: 4, sampling: "lttb", showSymbol: false,
          lineStyle: { color: metakd.color(one.slot), width: 1.8, type: nth ? "dashed" : "solid" }, itemStyle: { color: metakd.color(one.slot) },
        }))),
      });
  };

  metakd.views.game = {
    build: (place) => place.append(element("div", { class: "bar" }, find), hint, legend, panels),
    draw,
    follows: ["chosen", "rows", "theme"],
  };
})();
