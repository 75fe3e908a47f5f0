// What all parts of the page share: the runs, the chosen ones, and how elements are made.
"use strict";

const metakd = {
  rows: new Map(), // by the run's word
  order: [],
  head: { settings: [], shots: [], sets: [], apart: [], notes: [] },
  chosen: [], // {id, slot}: in the order of choice; the slot decides the colour
  shown: [], // rows that the filters leave
  listeners: {},
  MOST_CHOSEN: 21,
  views: {},
};

metakd.on = (event, action) => (metakd.listeners[event] ??= []).push(action);
metakd.tell = (event) => (metakd.listeners[event] ?? []).forEach((action) => action());

// Text is always set as text: what runs are called is never read as HTML.
metakd.element = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

metakd.options = (select, choices, value) => {
  select.replaceChildren(
    ...choices.map(([key, words]) => metakd.element("option", { value: key }, words)),
  );
  select.value = choices.some(([key]) => key === value) ? value : (choices[0]?.[0] ?? "");
  return select.value;
};

metakd.isChosen = (id) => metakd.chosen.some((one) => one.id === id);

metakd.choose = (ids, on) => {
  for (const id of ids) {
    if (!on) metakd.chosen = metakd.chosen.filter((one) => one.id !== id);
    else if (!metakd.isChosen(id) && metakd.chosen.length < metakd.MOST_CHOSEN) {
      const taken = new Set(metakd.chosen.map((one) => one.slot));
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      metakd.chosen.push({ id, slot });
    }
  }
  metakd.tell("chosen");
};

metakd.chosenRows = () =>
  metakd.chosen.map((one) => ({ ...one, row: metakd.rows.get(one.id) })).filter((one) => one.row);

metakd.value = (row, name) => {
  if (name === "status" || name === "name") return row[name];
  if (name === "seed") return row.seed;
  if (name === "tags") return row.tags.join(", ");
  if (name === "tasks") return row.set === undefined ? undefined : metakd.head.sets[row.set]?.letter;
  return row.settings[name];
};

// A short name: what sets the run apart from the others that are named beside it.
metakd.names = (rows) => {
  const differs = (name) => new Set(rows.map((row) => String(metakd.value(row, name)))).size > 1;
  const wanted = [...metakd.head.settings.filter(differs).slice(0, 3)];
  if (differs("seed")) wanted.push("seed");
  const named = rows.map((row) => {
    const words = wanted.map((name) => {
      const value = metakd.value(row, name);
      if (value === undefined || value === null) return null;
      const bare = typeof value === "string" && name !== "seed";
      return bare ? value : `${name.split(".").at(-1)} ${metakd.text(value)}`;
    });
    return words.filter(Boolean).join(", ") || row.path;
  });
  return named.map((name, i) =>
    named.indexOf(name) === named.lastIndexOf(name) ? name : `${rows[i].path}: ${name}`,
  );
};
