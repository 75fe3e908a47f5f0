// What all charts have in common: colours of the theme, words in boxes, size.
"use strict";

(() => {
  const { element } = metakd;
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b65a92", "#c98a00", "#3f9bd6", "#6f6f6f"];
  const DARK = ["#4aa3df", "#ff8a3c", "#2bc79a", "#e7a1cb", "#f0b93a", "#8fd0ff", "#b5b5b5"];
  const DASHES = ["solid", "dashed", "dotted"];

  metakd.isDark = () => document.documentElement.dataset.theme === "dark";
  metakd.color = (slot) => (metakd.isDark() ? DARK : LIGHT)[slot % 7];
  metakd.dash = (slot) => DASHES[Math.floor(slot / 7) % 3];
  metakd.scale = () => (metakd.isDark() ? ["#6f7bf0", "#23a9b8", "#7fd34e", "#fde725"] : ["#440154", "#3b528b", "#21918c", "#4aa832"]);
  metakd.ink = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), faint: of("--faint"), line: of("--line"), panel: of("--panel"), strong: of("--strong") };
  };

  metakd.axis = (further = {}) => {
    const { ink, faint, line } = metakd.ink();
    return {
      nameTextStyle: { color: faint },
      axisLabel: { color: ink, hideOverlap: true },
      axisLine: { show: true, lineStyle: { color: faint } },
      splitLine: { lineStyle: { color: line } },
      minorSplitLine: { show: false },
      ...further,
    };
  };
  metakd.tooltip = (lines) => {
    const { ink, panel, line } = metakd.ink();
    return {
      backgroundColor: panel, borderColor: line, textStyle: { color: ink, fontSize: 12.5 }, confine: true,
      // Elements, not HTML: names stay text.
      formatter: (what) => {
        const [first, ...rest] = lines(what);
        return element("div", {}, element("strong", {}, first), ...rest.map((text) => element("div", {}, text)));
      },
    };
  };

  // A chart that draws itself into its element, again where the size changed.
  metakd.chart = (words) => {
    const place = element("div", { class: "chart", role: "img", "aria-label": words });
    let chart = null;
    let last = null;
    new ResizeObserver(() => {
      if (chart && place.clientWidth) chart.resize();
      else if (!chart && last && place.clientWidth) draw(last);
    }).observe(place);
    const draw = (option) => {
      last = option;
      if (!place.clientWidth) return; // not shown yet
      if (!chart) {
        chart = echarts.init(place, null, { renderer: "canvas" });
        for (const [event, action] of waiting) chart.on(event, action);
      }
      chart.setOption({ animation: false, backgroundColor: "transparent", textStyle: { fontFamily: "inherit" }, ...option }, { notMerge: true });
    };
    const waiting = [];
    return {
      place,
      draw,
      on: (event, action) => (chart ? chart.on(event, action) : waiting.push([event, action])),
      inner: () => chart,
      dispose: () => chart?.dispose(),
    };
  };

  // Columns to spare are left out on a narrow page.
  const kinds = (head) => ["number", "name", "spare"].filter((kind) => head[kind]).join(" ");

  metakd.plainTable = (heads, rows) =>
    element("table", { class: "plain" },
      element("thead", {}, element("tr", {}, ...heads.map((head) =>
        element("th", { scope: "col", class: kinds(head) }, head.text)))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell, i) =>
        element("td", { class: kinds(heads[i]) }, ...(Array.isArray(cell) ? cell : [cell ?? ""])))))));
})();
