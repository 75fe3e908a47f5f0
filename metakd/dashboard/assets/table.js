// The table of runs: search, filters, groups, columns, keyboard.
"use strict";

(() => {
  const { element } = metakd;
  const find = (id) => document.getElementById(id);
  let table = null;
  let shape = "";
  let built = false;

  const ungrouped = "";
  const allButSeed = "\u0000group";

  metakd.buildTable = () =>
    new Promise((done) => {
      table = new Tabulator("#table", {
        data: metakd.order.map((id) => metakd.flat(metakd.rows.get(id))),
        columns: metakd.columns(metakd.head),
        index: "id",
        nestedFieldSeparator: false,
        height: `min(44vh, ${Math.max(240, 130 + 31 * metakd.rows.size)}px)`,
        layout: "fitData",
        columnCalcs: "group",
        groupClosedShowCalcs: true,
        groupToggleElement: false,
        groupHeader: groupHeader,
        headerFilterLiveFilterDelay: 100,
        placeholder: "No run fits the filters",
        columnDefaults: { headerSortTristate: true, vertAlign: "middle" },
        initialSort: firstSort(),
      });
      shape = JSON.stringify(metakd.head);
      table.on("dataFiltered", (_, rows) => {
        metakd.shown = rows.map((row) => row.getData().row);
        find("shown").textContent = `${rows.length} of ${metakd.rows.size} runs`;
        metakd.tell("shown");
      });
      table.on("tableBuilt", () => {
        built = true;
        dress();
        done();
      });
      metakd.table = table;
    });

  // Best first; the column's own sorter keeps sets of comparable runs together.
  const firstSort = () => {
    const set = metakd.head.sets[0];
    if (!set?.shots.length) return [{ column: "path", dir: "asc" }];
    return [{ column: `a:${set.measure}:student:${set.shots[0]}`, dir: set.measure === "mse" ? "asc" : "desc" }];
  };

  // The library's heads take the mouse only.
  const dress = () => {
    for (const column of table.getColumns()) {
      const head = column.getElement();
      const definition = column.getDefinition();
      if (!head || definition.headerSort === false || head.dataset.dressed) continue;
      head.dataset.dressed = "yes";
      head.tabIndex = 0;
      head.setAttribute("aria-label", `${metakd.columnNames.get(column.getField())}, sort`);
      head.addEventListener("keydown", (event) => {
        if (event.target !== head || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        const field = column.getField();
        const now = table.getSorters().find((sorter) => sorter.field === field)?.dir;
        const first = definition.headerSortStartingDir ?? "asc";
        table.setSort(field, now === undefined ? first : now === "asc" ? "desc" : "asc");
      });
    }
  };

  const groupHeader = (value, count, data, group) => {
    const rows = data.map((one) => one.row);
    const seeds = [...new Set(rows.map((row) => row.seed).filter((seed) => seed !== null))].sort((a, b) => a - b);
    const by = [find("group-by").value, find("then-by").value].filter(Boolean);
    const mixed = metakd.head.settings.filter(
      (name) => !by.includes(name) && new Set(rows.map((row) => String(row.settings[name]))).size > 1,
    );
    const said = `${count} ${count === 1 ? "run" : "runs"}` +
      (seeds.length ? `, ${seeds.length === 1 ? "seed" : `${seeds.length} seeds:`} ${seeds.slice(0, 8).join(", ")}${seeds.length > 8 ? " …" : ""}` : "") +
      (mixed.length ? `; they differ in ${mixed.slice(0, 3).join(", ")}${mixed.length > 3 ? ` and ${mixed.length - 3} more` : ""}` : "");
    const button = element("button", {
      type: "button",
      "aria-expanded": String(group.isVisible()),
      onclick: () => {
        group.toggle();
        button.setAttribute("aria-expanded", String(group.isVisible()));
        mark();
      },
    });
    const mark = () => button.replaceChildren(`${group.isVisible() ? "▾" : "▸"} ${value}`);
    mark();
    return element("span", {}, button, element("span", {}, `  ${said}`));
  };

  const named = (name) => (data) => {
    const value = metakd.value(data.row, name);
    return value === undefined || value === null || value === "" ? `no ${name.split(".").at(-1)}` : `${name.split(".").at(-1)} ${metakd.text(value)}`;
  };

  const groupLabels = () => {
    const groups = new Map();
    for (const row of metakd.rows.values())
      if (row.group !== undefined && !groups.has(row.group)) groups.set(row.group, row);
    const rows = [...groups.values()];
    const words = metakd.names(rows, [...metakd.settings(), "name", "tasks"]);
    return new Map([...groups.keys()].map((group, i) => [group, words[i]]));
  };

  const regroup = () => {
    const by = [find("group-by").value, find("then-by").value].filter((name) => name !== ungrouped);
    find("then-label").hidden = !by.length || find("group-by").value === allButSeed;
    if (!by.length) {
      if (table.options.groupBy) table.setGroupBy(false);
      return;
    }
    const labels = by[0] === allButSeed ? groupLabels() : null;
    const key = labels
      ? (data) => labels.get(data.row.group) ?? "without results"
      : (data) => [...new Set(by)].map((name) => named(name)(data)).join(", ");
    const keys = new Set([...metakd.rows.values()].map((row) => key({ row })));
    table.options.groupStartOpen = [keys.size <= 1]; // its setter insists on groups that are there
    table.setGroupBy(key);
  };

  const groupChoices = () => {
    const names = [...metakd.head.settings, "seed", "status", "name", "tags", ...(metakd.head.sets.length > 1 ? ["tasks"] : [])];
    const choices = names.map((name) => [name, name]);
    metakd.options(find("group-by"), [[ungrouped, "nothing"], [allButSeed, "all settings but the seed"], ...choices], find("group-by").value);
    metakd.options(find("then-by"), [[ungrouped, "nothing else"], ...choices], find("then-by").value);
    find("then-label").hidden = find("group-by").value === ungrouped || find("group-by").value === allButSeed;
    const statuses = [...new Set([...metakd.rows.values()].map((row) => row.status))].sort();
    metakd.options(find("status"), [["", "any"], ...statuses.map((one) => [one, one])], find("status").value);
  };

  const columnChoices = () => {
    const boxes = table.getColumns().filter((column) => metakd.columnNames.has(column.getField())).map((column) =>
      element("label", {}, element("input", {
        type: "checkbox",
        checked: column.isVisible(),
        onchange: (event) => (event.target.checked ? column.show() : column.hide()),
      }), metakd.columnNames.get(column.getField())));
    find("columns").querySelector("div").replaceChildren(...boxes);
  };

  const refilter = () => {
    const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = find("status").value;
    const brushed = metakd.brushed;
    table.setFilter((data) =>
      words.every((word) => data.text.includes(word)) &&
      (!status || data.row.status === status) &&
      (!brushed || brushed.has(data.id)));
  };
  metakd.refilter = refilter;

  metakd.updateTable = async (changed, gone) => {
    if (shape !== JSON.stringify(metakd.head)) {
      shape = JSON.stringify(metakd.head);
      const hidden = new Map(table.getColumns().map((column) => [column.getField(), column.isVisible()]));
      const columns = metakd.columns(metakd.head).map((column) =>
        hidden.has(column.field) ? { ...column, visible: hidden.get(column.field) } : column);
      const sorters = table.getSorters().map(({ field, dir }) => ({ column: field, dir }));
      const filters = table.getHeaderFilters();
      table.setColumns(columns);
      await table.replaceData(metakd.order.map((id) => metakd.flat(metakd.rows.get(id))));
      const fields = new Set(columns.map((column) => column.field));
      filters.filter(({ field }) => fields.has(field)).forEach(({ field, value }) => table.setHeaderFilterValue(field, value));
      table.setSort(sorters.filter(({ column }) => fields.has(column)));
      dress();
      groupChoices();
      columnChoices();
      if (find("group-by").value !== ungrouped) regroup();
    } else {
      for (const id of gone) if (table.getRow(id)) await table.deleteRow(id);
      await table.updateOrAddData(changed.map(metakd.flat));
      table.refreshFilter();
      groupChoices();
    }
    refilter();
  };

  let refreshed = new Set();
  metakd.on("chosen", () => {
    if (!built) return;
    const now = new Set(metakd.chosen.map((one) => one.id));
    for (const id of new Set([...now, ...refreshed])) {
      if (now.has(id) && refreshed.has(id)) continue;
      const cell = table.getRow(id) && table.getRow(id).getCell("pick");
      const element = cell && cell.getElement();
      if (!element) continue;
      const focused = element.contains(document.activeElement);
      element.replaceChildren(table.getColumn("pick").getDefinition().formatter(cell));
      if (focused) element.querySelector("input").focus();
    }
    refreshed = now;
  });

  metakd.bindTable = () => {
    groupChoices();
    columnChoices();
    let waiting = 0;
    find("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(refilter, 80);
    });
    find("status").addEventListener("change", refilter);
    find("group-by").addEventListener("change", regroup);
    find("then-by").addEventListener("change", regroup);
    find("clear-filters").addEventListener("click", () => {
      find("search").value = "";
      find("status").value = "";
      metakd.brushed = null;
      table.clearHeaderFilter();
      refilter();
      metakd.tell("cleared");
    });
    find("select-shown").addEventListener("click", () => {
      const rows = table.getRows("active").map((row) => row.getData().id);
      metakd.choose(rows.slice(0, metakd.MOST_CHOSEN), true);
    });
    find("clear-selection").addEventListener("click", () => metakd.choose(metakd.chosen.map((one) => one.id), false));
    document.addEventListener("click", (event) => {
      if (!find("columns").contains(event.target)) find("columns").open = false;
    });
    find("columns").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      find("columns").open = false;
      find("columns").querySelector("summary").focus();
    });
  };
})();
