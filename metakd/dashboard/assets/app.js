// What all parts of the page share: the runs, the chosen ones, and how elements are made.
"use strict";

const metakd = {
  rows: new Map(), // by the run's word
  order: [],
  head: { settings: [], shots: [], sets: [], apart: [], outside: [], notes: [] },
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

// Choices of a whole group (algorithm, distill) before single settings.
metakd.settings = () =>
  [...metakd.head.settings].sort((a, b) => a.includes(".") - b.includes("."));

// A short name: what sets the run apart from the others that are named beside it.
metakd.names = (rows, names = [...metakd.settings(), "seed"]) => {
  const said = (row, name) => {
    const value = metakd.value(row, name);
    if (value === undefined || value === null || value === "null") return "";
    return typeof value === "string" ? value : `${name.split(".").at(-1)} ${metakd.text(value)}`;
  };
  // A setting is named only if it tells some runs apart that the ones before did not.
  let named = rows.map(() => "");
  for (const name of names) {
    const longer = named.map((words, i) => [words, said(rows[i], name)].filter(Boolean).join(", "));
    if (new Set(longer).size > new Set(named).size) named = longer;
  }
  const times = new Map();
  for (const name of named) times.set(name, (times.get(name) ?? 0) + 1);
  return named.map((name, i) =>
    !name ? rows[i].path : times.get(name) === 1 ? name : `${rows[i].path}: ${name}`,
  );
};
