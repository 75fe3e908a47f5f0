// Begins: reads the runs, shows them, and follows what changes.
"use strict";

(() => {
  const { element } = metakd;
  const find = (id) => document.getElementById(id);
  const EVERY_MS = 2000;
  const MOST_WAIT_MS = 30000;
  const FIRST = 4;
  let now = "";

  // --- theme

  const system = matchMedia("(prefers-color-scheme: dark)");
  const remember = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("metakd-theme");
      localStorage.setItem("metakd-theme", value);
    } catch { /* a browser may refuse to store anything */ }
    return value;
  };
  const theme = () => {
    const wanted = find("theme").value;
    document.documentElement.dataset.theme = wanted === "auto" ? (system.matches ? "dark" : "light") : wanted;
    metakd.tell("theme");
  };
  find("theme").value = remember() ?? "auto";
  if (!find("theme").value) find("theme").value = "auto";
  find("theme").addEventListener("change", () => { remember(find("theme").value); theme(); });
  system.addEventListener("change", theme);
  theme();

  // --- views

  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const built = new Set();
  let view = "curves";
  metakd.showView = (name) => {
    view = name;
    for (const tab of tabs) {
      const here = tab.getAttribute("aria-controls");
      tab.setAttribute("aria-selected", String(here === name));
      tab.tabIndex = here === name ? 0 : -1;
      find(here).hidden = here !== name;
    }
    if (!built.has(name)) {
      built.add(name);
      metakd.views[name].build(find(name));
    }
    metakd.views[name].draw();
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => metakd.showView(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const to = event.key === "Home" ? tabs[0] : event.key === "End" ? tabs.at(-1) : step ? tabs.at((i + step) % tabs.length) : null;
      if (!to) return;
      event.preventDefault();
      to.focus();
      to.click();
    });
  });
  for (const event of ["chosen", "shown", "rows", "theme"]) {
    let waiting = 0;
    metakd.on(event, () => {
      // A filter that is typed draws once it rests.
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (built.has(view) && metakd.views[view].follows.includes(event)) metakd.views[view].draw();
      }, event === "shown" ? 120 : 0);
    });
  }

  // --- runs

  const take = (answer) => {
    const changed = answer.rows;
    const gone = [];
    if (answer.anew) metakd.rows.clear();
    for (const row of changed) metakd.rows.set(row.id, row);
    if (answer.head) metakd.head = answer.head;
    if (answer.order) {
      metakd.order = answer.order;
      const there = new Set(answer.order);
      for (const id of [...metakd.rows.keys()]) if (!there.has(id)) { metakd.rows.delete(id); gone.push(id); }
    }
    now = answer.now;
    return { changed, gone, any: Boolean(changed.length || gone.length || answer.head || answer.anew) };
  };

  const describe = () => {
    const all = [...metakd.rows.values()];
    const count = (status) => all.filter((row) => row.status === status).length;
    const words = ["finished", "running", "waiting", "pruned", "interrupted", "failed", "damaged"]
      .map((status) => [count(status), status]).filter(([n]) => n).map(([n, status]) => `${n} ${status}`);
    find("folder").textContent = metakd.head.folder ?? "";
    find("counts").textContent = `${all.length} ${all.length === 1 ? "run" : "runs"}${words.length ? `: ${words.join(", ")}` : ""}`;
    const sets = metakd.head.sets;
    const lines = [
      ...(sets.length > 1 ? [`Only figures with the same letter in the column “tasks” can be compared.`,
        ...sets.map((set) => `${set.letter}: ${set.title}, ${set.runs} ${set.runs === 1 ? "run" : "runs"}`)] : []),
      ...metakd.head.apart, ...metakd.head.outside, ...metakd.head.notes,
    ];
    const notices = find("notices");
    notices.hidden = !lines.length;
    notices.querySelector("summary").textContent =
      `${lines.length} ${lines.length === 1 ? "notice" : "notices"}${sets.length > 1 ? `: these runs were evaluated on ${sets.length} different sets of tasks` : ""}`;
    notices.querySelector("div").replaceChildren(...lines.map((line) => element("p", {}, line)));
    document.title = `${all.length} runs: MetaKD`;
  };

  // The best run of each of the first groups, and what goes on now.
  const chooseFirst = () => {
    const groups = new Set();
    const ranked = [...metakd.rows.values()].filter((row) => metakd.headline(row) && row.logged)
      .sort((a, b) => a.set - b.set || (a.measure === "mse" ? 1 : -1) * (metakd.headline(a).mean - metakd.headline(b).mean));
    const best = ranked.filter((row) => !groups.has(row.group) && groups.add(row.group)).slice(0, FIRST);
    const running = [...metakd.rows.values()].filter((row) => row.status === "running" && row.logged).slice(0, 3);
    metakd.choose([...best, ...running].map((row) => row.id), true);
  };

  const follow = async () => {
    let wait = EVERY_MS;
    for (;;) {
      await new Promise((done) => setTimeout(done, wait));
      if (document.hidden) continue;
      try {
        const { changed, gone, any } = take(await metakd.source.changes(now));
        if (any) {
          describe();
          if (gone.some(metakd.isChosen)) metakd.choose(gone, false);
          await metakd.updateTable(changed, gone);
          metakd.tell("rows");
        }
        find("state").textContent = `live, ${new Date().toLocaleTimeString()}`;
        wait = EVERY_MS;
      } catch (error) {
        wait = Math.min(2 * wait, MOST_WAIT_MS);
        find("state").textContent = `no answer (${error.message}); what is shown may be old`;
      }
    }
  };

  const begin = async () => {
    take(await metakd.source.changes(""));
    describe();
    await metakd.buildTable();
    metakd.bindTable();
    metakd.shown = [...metakd.rows.values()];
    find("shown").textContent = `${metakd.rows.size} of ${metakd.rows.size} runs`;
    chooseFirst();
    metakd.showView("curves");
    document.documentElement.dataset.ready = "yes";
    if (!metakd.source.isLive) {
      find("state").textContent = `as of ${metakd.moment(metakd.source.made)}`;
      return;
    }
    find("state").textContent = "live";
    await follow();
  };
  begin().catch((error) => {
    find("state").textContent = String(error.message ?? error);
    throw error;
  });
})();
