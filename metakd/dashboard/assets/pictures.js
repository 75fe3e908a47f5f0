// Sample tasks with the answers of teacher and student, and the runs' other pictures.
"use strict";

(() => {
  const { element } = metakd;
  const which = element("select", { id: "picture", onchange: () => draw() });
  const hint = element("p", { class: "hint" });
  const gallery = element("div", { class: "gallery" });
  const words = (name) => name.replace(/\.png$/, "").replaceAll("_", " ");
  const FIRST = "sample_tasks.png";

  const draw = () => {
    const chosen = metakd.chosenRows();
    const names = [...new Set(chosen.flatMap((one) => one.row.figures))].sort();
    metakd.options(which, names.map((name) => [name, words(name)]), which.value || FIRST);
    const with_ = chosen.filter((one) => one.row.figures.includes(which.value));
    const left = metakd.source.picturesLeftOut;
    hint.textContent = (!chosen.length ? "Select runs in the table to see their pictures." : names.length ? "" : "The selected runs have no pictures yet.") +
      (left ? ` ${left} pictures were left out of this file; they lie in the runs' figures/.` : "");
    gallery.className = which.value === FIRST ? "gallery" : "gallery two";
    const labels = metakd.names(with_.map((one) => one.row));
    gallery.replaceChildren(...with_.map((one, i) => {
      const address = metakd.source.picture(one.id, which.value);
      // The file's age is in the address, so that a newer picture is fetched.
      const fresh = metakd.source.isLive ? `${address}&${new URLSearchParams({ at: one.row.end ?? one.row.logged })}` : address;
      return element("figure", {},
        element("figcaption", {}, metakd.swatch(one.slot), element("strong", {}, labels[i]), ` ${one.row.path}`),
        fresh ? element("img", { src: fresh, alt: `${words(which.value)} of ${labels[i]}`, loading: "lazy" }) : element("p", { class: "hint" }, "left out of this file"));
    }));
  };

  metakd.views.pictures = {
    build: (place) => place.append(element("div", { class: "bar" }, element("label", {}, "Picture ", which)), hint, gallery),
    draw,
    follows: ["chosen"],
  };
})();
