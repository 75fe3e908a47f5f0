// The table's columns: which there are for these runs, how they are sorted, filtered and shown.
"use strict";

(() => {
  const { element } = metakd;
  const MODELS = { student: "student", compressed: "compressed", student_alone: "student alone", teacher: "teacher" };
  const COSTS = {
    parameters: ["parameters", metakd.whole],
    macs: ["multiply-adds", metakd.whole],
    task_macs: ["multiply-adds of a task", metakd.whole],
    bytes: ["bytes", metakd.whole],
    latency_ms: ["latency (ms)", (value) => value.toFixed(3)],
    task_latency_ms: ["latency of a task (ms)", (value) => value.toFixed(3)],
  };

  // Missing values come last, whichever way it is sorted; numbers before words.
  const sorter = (a, b, one, other, column, direction) => {
    const missing = (value) => value === undefined || value === null || value === "";
    if (missing(a) || missing(b)) {
      const order = missing(a) - missing(b);
      return direction === "desc" ? -order : order;
    }
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b && (typeof a === "number" || typeof b === "number"))
      return typeof a === "number" ? -1 : 1;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  metakd.fits = (wanted, value) => {
    const words = String(wanted).trim();
    if (!words) return true;
    const range = words.match(/^(-?[\d.]+(?:e-?\d+)?)\.\.(-?[\d.]+(?:e-?\d+)?)$/i);
    const bound = words.match(/^(<=|>=|<|>)\s*(-?[\d.]+(?:e-?\d+)?)$/i);
    if (range || bound) {
      if (typeof value !== "number") return false;
      if (range) return value >= +range[1] && value <= +range[2];
      const limit = +bound[2];
      return { "<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit }[bound[1]];
    }
    const text = metakd.text(value).toLowerCase();
    if (words.startsWith("=")) return text === words.slice(1).trim().toLowerCase();
    return text.includes(words.toLowerCase());
  };

  // Figures of different tasks are not mixed: what can be compared stands together.
  const withinSets = (a, b, one, other, column, direction) => {
    const [first, second] = [one, other].map((row) => row.getData().row.set ?? Infinity);
    if (first === second) return sorter(a, b, one, other, column, direction);
    return (first < second ? -1 : 1) * (direction === "desc" ? -1 : 1);
  };

  const title = (over, name) => () =>
    element("span", {}, element("span", { class: "head-of" }, over), element("span", { class: "head-name" }, name));

  // What a column is called where it is named in words.
  metakd.columnNames = new Map();

  const column = (field, over, name, further = {}) => metakd.columnNames.set(field, over ? `${over} ${name}` : name) && ({
    field,
    title: name,
    titleFormatter: title(over, name),
    sorter,
    headerFilter: "input",
    headerFilterFunc: metakd.fits,
    headerFilterPlaceholder: "filter",
    headerFilterParams: { elementAttributes: { "aria-label": `filter by ${over ? `${over} ` : ""}${name}` } },
    formatter: (cell) => element("span", {}, metakd.text(cell.getValue())),
    ...further,
  });

  const number = { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: "desc" };

  // In groups: mean, standard deviation and number, of figures that can be compared; where runs were
  // evaluated on different numbers of tasks, these are said.
  const calculation = (write, { overTasks = false } = {}) => ({
    topCalc: (values, data) => {
      const known = data.filter((_, i) => typeof values[i] === "number");
      if (new Set(known.map((d) => d.tasks)).size > 1) return { apart: true };
      const counts = overTasks ? [...new Set(known.map((d) => d.row.tasks))].filter(Boolean).sort((a, b) => a - b) : [];
      const found = metakd.spread(values);
      return found && { ...found, counts: counts.length > 1 ? counts : [] };
    },
    topCalcFormatter: (cell) => {
      const found = cell.getValue();
      if (!found) return "";
      if (found.apart) return element("span", { class: "spread", title: "evaluated on different tasks" }, "not comparable");
      const spread = !found.deviation ? "" : ` sd ${write(found.deviation)}`;
      const over = found.counts.length ? `; ${found.counts.slice(0, -1).join(", ")} and ${found.counts.at(-1)} tasks` : "";
      return element("span", over ? { title: "mean of runs that were evaluated on different numbers of tasks" } : {},
        write(found.mean), element("span", { class: "spread" }, `${spread} (${found.n}${over})`));
    },
  });

  const figures = (head) => {
    const made = [];
    const measures = new Set(head.sets.map((set) => set.measure));
    const all = [...metakd.rows.values()];
    for (const measure of measures)
      for (const model of Object.keys(MODELS)) {
        const shots = new Set(
          all.filter((row) => row.measure === measure).flatMap((row) =>
            [row.accuracy, row.diverged].flatMap((of) => Object.keys(of?.[model] ?? {}))),
        );
        for (const k of [...shots].sort((a, b) => a - b)) {
          const write = (value) => (measure === "mse" ? value.toFixed(4) : value.toFixed(2));
          const field = `a:${measure}:${model}:${k}`;
          made.push(
            column(field, `${metakd.shots(k)}${measure === "mse" ? " mse" : ", %"}`, MODELS[model], {
              ...number,
              ...calculation(write, { overTasks: true }),
              sorter: withinSets,
              headerSortStartingDir: measure === "mse" ? "asc" : "desc",
              minWidth: 152,
              visible: head.shots.includes(Number(k)),
              formatter: (cell) => {
                const value = cell.getValue();
                const { row } = cell.getData();
                const why = row.measure === measure ? row.diverged?.[model]?.[k] : undefined;
                const mark = why ? element("span", { class: "diverged", title: why }, " †") : null;
                if (value === undefined) return mark ? element("span", { title: why }, "diverged", mark) : "";
                const half = row.accuracy[model][k][1];
                const scale = measure === "mse" ? 1 : 100;
                const interval = half === null || half === undefined ? "" : ` ± ${write(scale * half)}`;
                return element("span", why ? { title: why } : {}, write(value),
                  element("span", { class: "spread" }, interval), mark);
              },
            }),
          );
        }
      }
    return made;
  };

  const costs = () => {
    const there = (key) => [...metakd.rows.values()].some((row) => row.cost?.student?.[key] !== undefined);
    return Object.entries(COSTS)
      .filter(([key]) => there(key))
      .map(([key, [name, write]]) =>
        column(`c:${key}`, "student", name, {
          ...number,
          ...calculation(write),
          minWidth: 120,
          headerSortStartingDir: "asc",
          visible: key === "parameters" || key === "latency_ms",
          formatter: (cell) => element("span", {}, cell.getValue() === undefined ? "" : write(cell.getValue())),
        }),
      );
  };

  const status = (row) => {
    const { progress } = row;
    let text = row.status;
    if (progress?.stage && row.status !== "failed") {
      text += `: ${progress.stage.replace("_", " ")}`;
      if (progress.step !== undefined) text += ` ${progress.step}${progress.steps ? `/${progress.steps}` : ""}`;
    }
    return text;
  };

  const pick = (cell) => {
    const { row } = cell.getData();
    const chosen = metakd.chosen.find((one) => one.id === row.id);
    const box = element("input", {
      type: "checkbox",
      checked: Boolean(chosen),
      "aria-label": `select ${row.path}`,
      onchange: (event) => {
        metakd.choose([row.id], event.target.checked);
        event.target.checked = metakd.isChosen(row.id);
      },
    });
    return element("span", { class: "pick" }, box, chosen ? metakd.swatch(chosen.slot) : null);
  };

  metakd.swatch = (slot) =>
    element("span", { class: `swatch c${slot % 7} d${Math.floor(slot / 7) % 3}`, "aria-hidden": "true" });

  metakd.columns = (head) => {
    // Names that say what the folder or the settings say make no column.
    const usual = (row) => row.name === row.path.split("/").at(-1) || row.name.endsWith(`_${row.settings.algorithm}`);
    const all = [...metakd.rows.values()];
    const several = new Set(all.map((row) => row.name)).size > 1 && !all.every(usual);
    return [
      { field: "pick", title: "", headerSort: false, formatter: pick, frozen: true, width: 58 },
      column("path", "", "run", {
        frozen: true,
        minWidth: 120,
        maxInitialWidth: innerWidth <= 480 ? 130 : 280,
        variableHeight: true,
        formatter: (cell) => {
          const { row } = cell.getData();
          const doubts = row.warnings ?? [];
          return element("button", {
            type: "button",
            class: "linkish",
            title: ["show details", ...doubts].join("\n\n"),
            onclick: () => metakd.showDetails(row.id),
          }, cell.getValue(), ...(doubts.length ? [" ", element("span", { "aria-label": "with warnings" }, "‡")] : []));
        },
      }),
      column("status", "", "status", {
        maxInitialWidth: 230,
        formatter: (cell) => {
          const { row } = cell.getData();
          return element("span", { class: `status-${row.status}`, title: row.reason ?? "" }, status(row));
        },
      }),
      ...(head.sets.length > 1 ? [column("tasks", "", "tasks", { hozAlign: "center" })] : []),
      ...figures(head),
      ...(several ? [column("name", "", "name", { maxInitialWidth: 200 })] : []),
      ...(all.some((row) => row.outside) ? [column("outside", "", "outside pre-training", { maxInitialWidth: 220 })] : []),
      ...metakd.settings().map((name) => {
        const parts = name.split(".");
        const values = [...metakd.rows.values()].map((row) => row.settings[name]);
        const numeric = values.every((value) => value === undefined || typeof value === "number");
        return column(`s:${name}`, parts.slice(0, -1).join("."), parts.at(-1), {
          ...(numeric ? { hozAlign: "right", headerHozAlign: "right" } : {}),
          maxInitialWidth: 220,
          formatter: (cell) => element("span", {}, cell.getValue() === undefined ? "–" : metakd.text(cell.getValue())),
        });
      }),
      column("seed", "", "seed", { hozAlign: "right", headerHozAlign: "right" }),
      ...costs(),
      column("agreement", "with teacher", "agreement (%)", { ...number, ...calculation((v) => v.toFixed(1)), visible: false,
        formatter: (cell) => element("span", {}, cell.getValue() === undefined ? "" : cell.getValue().toFixed(1)) }),
      column("seconds", "", "time taken", { ...number, ...calculation(metakd.duration), visible: false,
        formatter: (cell) => element("span", {}, cell.getValue() === undefined ? "" : metakd.duration(cell.getValue())) }),
      column("start", "", "started", { visible: false,
        formatter: (cell) => element("span", {}, cell.getValue() ? metakd.moment(cell.getValue()) : "") }),
      column("tags", "", "tags", { visible: false }),
      column("reason", "", "reason", { visible: false, maxInitialWidth: 420 }),
    ];
  };

  // What the table sorts and filters: a flat object for each run.
  metakd.flat = (row) => {
    const found = {
      id: row.id, row, path: row.path, status: status(row), name: row.name, seed: row.seed ?? undefined,
      tasks: metakd.value(row, "tasks"), seconds: row.seconds, start: row.start, tags: row.tags.join(", "),
      reason: row.reason, outside: row.outside?.join(", "), agreement: row.fidelity?.agreement === undefined ? undefined : 100 * row.fidelity.agreement,
    };
    for (const [name, value] of Object.entries(row.settings)) found[`s:${name}`] = value;
    for (const [model, shots] of Object.entries(row.accuracy ?? {}))
      for (const [k, [mean]] of Object.entries(shots))
        found[`a:${row.measure}:${model}:${k}`] = row.measure === "mse" ? mean : 100 * mean;
    for (const [key, value] of Object.entries(row.cost?.student ?? {})) found[`c:${key}`] = value;
    found.text = [row.path, row.name, row.status, row.reason, found.tags, found.outside, ...Object.values(row.settings)]
      .map(metakd.text).join("\n").toLowerCase();
    return found;
  };

  metakd.headline = (row) => {
    const [shots, found] = Object.entries(row?.accuracy?.student ?? {})[0] ?? [];
    return found ? { shots: Number(shots), mean: found[0], half: found[1], measure: row.measure } : null;
  };
})();
