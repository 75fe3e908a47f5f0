// Where the data come from: the server, or what an exported page holds.
"use strict";

(() => {
  const held = document.getElementById("data");
  const ask = async (path, words) => {
    const answer = await fetch(`${path}?${new URLSearchParams(words)}`);
    if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
    return answer.json();
  };
  const served = {
    isLive: true,
    changes: (since) => ask("api/runs", { since }),
    series: (run, place) => ask("api/series", { run, place }),
    details: (run) => ask("api/run", { run }),
    differences: (baseline, runs) => ask("api/differences", { baseline, runs: runs.join(",") }),
    picture: (run, name) => `figure?${new URLSearchParams({ run, name })}`,
  };
  const embedded = () => {
    const data = JSON.parse(held.textContent);
    return {
      isLive: false,
      made: data.made,
      picturesLeftOut: data.pictures_left_out,
      changes: async () => data,
      series: async (run) => ({
        place: "", anew: true, more: false, stages: data.series[run] ?? {}, left_out: 0,
      }),
      details: async (run) => {
        const one = data.details[run];
        const common = one.nothing_in_common ? {} : data.common;
        return { ...one, settings: { ...common, ...one.settings } };
      },
      // Computed when the page was made, against the best run on the same tasks.
      differences: async (baseline) =>
        data.differences.find((one) => one.baseline === baseline) ?? { baseline, pairs: [], apart: [] },
      baselines: data.differences.map((one) => one.baseline),
      picture: (run, name) => data.pictures[run]?.[name],
    };
  };
  metakd.source = held ? embedded() : served;

  // Curves, read on from where they were read to.
  const known = new Map();
  metakd.series = async (id) => {
    const row = metakd.rows.get(id);
    let one = known.get(id) ?? { place: "", stages: {}, logged: -1 };
    if (one.logged === row.logged) return one.stages;
    for (let more = true; more; ) {
      const answer = await metakd.source.series(id, one.place);
      if (answer.anew) one = { stages: answer.stages };
      else join(one.stages, answer.stages);
      one.place = answer.place;
      more = answer.more;
    }
    one.logged = row.logged;
    known.set(id, one);
    return one.stages;
  };
  const join = (stages, further) => {
    for (const [name, stage] of Object.entries(further)) {
      const before = (stages[name] ??= { step: [], time: [], metrics: {} });
      const count = before.step.length;
      for (const metric of new Set([...Object.keys(before.metrics), ...Object.keys(stage.metrics)])) {
        const values = (before.metrics[metric] ??= Array(count).fill(null));
        values.push(...(stage.metrics[metric] ?? Array(stage.step.length).fill(null)));
      }
      before.step.push(...stage.step);
      before.time.push(...stage.time);
    }
  };
})();
