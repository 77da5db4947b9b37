
// Samples: the threshold slider, the map of the features, thumbnails that grow when they are clicked. Everything is drawn from the data of
// the section; nothing is loaded.
// A section has an empty drawing, which knows the name space of all.
const svgSpace = document.querySelector("section.samples svg")?.namespaceURI;
const svgElement = (name, attributes, parent) => {
  const element = document.createElementNS(svgSpace, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
};
const element = (name, text, parent, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (parent) parent.append(made);
  return made;
};
const percent = (share) => (100 * share).toFixed(2) + "\u00a0%";
// Colours of sets in the order given, and of everything that is counted; readable in light and dark.
const setColours = ["#2f7ed8", "#e07b00", "#2a9d5c", "#b04fc4", "#c4a000", "#d6455d", "#4fb0bf", "#8a6d3b"];
const ink = () => getComputedStyle(document.body).getPropertyValue("--ink");

for (const section of document.querySelectorAll("section.samples")) {
  const data = JSON.parse(section.querySelector("script.data").textContent);
  const samples = data.samples.map(([set, label, predicted, confidence, thumbnail, name, own, at, scores]) => ({
    set, label, predicted, confidence, thumbnail, name, own, at, scores,
  }));
  const className = (index) => data.classes[index] ?? "class " + index;
  const truth = (sample) => sample.own ?? (sample.label === null ? null : className(sample.label));
  const isCorrect = (sample) => (sample.label === null ? null : sample.label === sample.predicted);
  const thumb = (sample, parent) => {
    const known = sample.thumbnail !== null;
    return element("span", known ? undefined : sample.name ?? "no image", parent, "thumb " + (known ? data.key + sample.thumbnail : "none"));
  };
  const facts = (sample) => {
    const list = [["set", data.sets[sample.set]]];
    if (sample.name !== null) list.push(["image", sample.name]);
    if (truth(sample) !== null) list.push(["class", truth(sample)]);
    list.push(["predicted", className(sample.predicted) + ", " + percent(sample.confidence)]);
    return list;
  };
  const setColour = (set) => setColours[set % setColours.length];

  // A click on a thumbnail shows it large, with everything that is known of it.
  const open = (index) => {
    const sample = samples[index];
    const dialog = element("dialog", undefined, document.body, "sample");
    // The first button has the focus, so it stands at the top.
    const close = element("button", "Close", dialog);
    close.type = "button";
    close.addEventListener("click", () => dialog.close());
    thumb(sample, dialog);
    const list = element("dl", undefined, dialog);
    const scored = data.methods.map((method, place) => [method, sample.scores[place]]);
    for (const [name, value] of [...facts(sample), ...scored.filter((entry) => entry[1] !== undefined && entry[1] !== null)]) {
      element("dt", name, list);
      element("dd", String(value), list);
    }
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
  };
  section.addEventListener("click", (event) => {
    const tile = event.target.closest("[data-sample]");
    if (tile) open(Number(tile.dataset.sample));
  });

  const ranking = section.querySelector("select.ranking");
  if (ranking) {
    ranking.closest(".by-score").hidden = false;
    const show = () => {
      for (const block of section.querySelectorAll(".ranked")) block.hidden = block.dataset.score !== ranking.value;
    };
    ranking.addEventListener("change", show);
  }

  const slider = section.querySelector(".slider");
  if (slider) {
    slider.hidden = false;
    const [choice, range, output] = ["select", "input", "output"].map((name) => slider.querySelector(name));
    for (const entry of data.sliders) element("option", entry.score, choice);
    if (data.sliders.some((entry) => entry.score === data.first)) choice.value = data.first;
    const figure = slider.querySelector("figure");
    const rows = slider.querySelector("tbody");
    const nearest = slider.querySelector(".nearest");
    const [height, left, bottom, top] = [240, 12, 26, 8];
    let line, entry, width;
    const place = (value) => left + ((value - entry.low) / (entry.high - entry.low)) * (width - 2 * left);
    const draw = () => {
      if (entry !== data.sliders[choice.selectedIndex]) {
        entry = data.sliders[choice.selectedIndex];
        range.max = entry.thresholds.length - 1;
        range.value = entry.start;
      }
      // As wide as there is room, so that its letters are as large on a phone.
      width = Math.max(figure.clientWidth - 12, 280);
      figure.replaceChildren();
      const svg = svgElement("svg", { viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "Distribution of " + entry.score }, figure);
      const most = Math.max(...entry.bars.flatMap((bars, set) => bars.map((count) => count / entry.samples[set])));
      entry.bars.forEach((bars, set) => {
        const step = (width - 2 * left) / bars.length;
        const y = (count) => height - bottom - (count / entry.samples[set] / (most || 1)) * (height - bottom - top);
        let path = "M" + left + " " + (height - bottom);
        bars.forEach((count, bar) => (path += "L" + (left + bar * step).toFixed(1) + " " + y(count).toFixed(1) + "H" + (left + (bar + 1) * step).toFixed(1)));
        svgElement("path", { d: path + "V" + (height - bottom) + "Z", fill: setColour(set), "fill-opacity": 0.3, stroke: setColour(set), "stroke-width": 1.5 }, svg);
      });
      svgElement("line", { x1: left, x2: width - left, y1: height - bottom, y2: height - bottom, class: "axis" }, svg);
      for (let tick = 0; tick <= 4; tick++) {
        const value = entry.low + ((entry.high - entry.low) * tick) / 4;
        const anchor = ["start", "middle", "middle", "middle", "end"][tick];
        svgElement("text", { x: place(value), y: height - 8, "text-anchor": anchor }, svg).textContent = Number(value.toPrecision(3));
      }
      line = svgElement("line", { y1: top, y2: height - bottom, class: "threshold" }, svg);
      if (entry.outside > 0) element("figcaption", percent(entry.outside) + " of all scores lie outside the axis; they are counted below.", figure);
      move();
    };
    const move = () => {
      const at = Number(range.value);
      const threshold = entry.thresholds[at];
      output.textContent = String(threshold);
      const x = Math.min(Math.max(place(threshold), left), width - left);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      rows.replaceChildren();
      data.sets.forEach((name, set) => {
        const flagged = entry.flagged[set][at];
        const row = element("tr", undefined, rows);
        const first = element("td", undefined, row);
        element("span", undefined, first, "swatch").style.background = setColour(set);
        first.append(name);
        element("td", String(entry.samples[set]), row, "number");
        element("td", String(flagged), row, "number flagged");
        element("td", percent(flagged / entry.samples[set]), row, "number share");
        element("td", set === 0 ? "false alarms" : "novel images caught", row);
      });
      const method = data.methods.indexOf(entry.score);
      nearest.replaceChildren();
      const near = (title, wanted, order) => {
        const scored = samples.map((sample, index) => [sample.scores[method], index, sample]);
        const found = scored.filter(([score, , sample]) => typeof score === "number" && wanted(score, sample)).sort((a, b) => order * (a[0] - b[0])).slice(0, 12);
        if (!found.length) return;
        element("h4", title, nearest);
        const tiles = element("div", undefined, nearest, "tiles");
        for (const [score, index, sample] of found) {
          const tile = element("button", undefined, tiles, "tile");
          tile.type = "button";
          tile.dataset.sample = index;
          thumb(sample, tile);
          element("span", Number(score.toPrecision(4)) + " " + className(sample.predicted), tile, "caption");
        }
      };
      near("Known images just below the threshold, of those on this page", (score, sample) => sample.set === 0 && score < threshold, -1);
      near("Novel images just above it, of those on this page", (score, sample) => sample.set > 0 && score >= threshold, 1);
    };
    choice.addEventListener("change", draw);
    range.addEventListener("input", move);
    addEventListener("resize", draw);
    draw();
  }

  const map = section.querySelector(".map");
  if (map) {
    map.hidden = false;
    const [projection, colour] = ["select.projection", "select.colour"].map((name) => map.querySelector(name));
    const names = { pca: "principal components", class_means: "plane of the class means" };
    for (const [name] of data.maps) element("option", names[name] ?? name, projection);
    const canvas = map.querySelector("canvas");
    const hover = map.querySelector(".hover");
    const key = map.querySelector(".key");
    const shown = samples.map((sample, index) => ({ sample, index })).filter((entry) => entry.sample.at.length);
    const hue = (index) => "hsl(" + ((index * 137.508) % 360).toFixed(0) + " 65% 50%)";
    const groups = {
      set: (sample) => [setColour(sample.set), data.sets[sample.set]],
      class: (sample) => [hue(sample.predicted), className(sample.predicted)],
      correct: (sample) =>
        ({ true: ["#2f7ed8", "correct"], false: ["#d6455d", "wrong"], null: ["#8b949e", sample.set ? "novel" : "no label"] })[isCorrect(sample)],
    };
    let points = [];
    const draw = () => {
      const which = projection.selectedIndex;
      const size = canvas.getBoundingClientRect();
      const scale = devicePixelRatio || 1;
      canvas.width = size.width * scale;
      canvas.height = size.height * scale;
      // A few far points must not squeeze the rest: the axes end three interquartile ranges beyond the quartiles, and points beyond
      // stand on the edge.
      const limits = [0, 1].map((axis) => {
        const values = shown.map((entry) => entry.sample.at[which][axis]).sort((a, b) => a - b);
        const at = (share) => values[Math.round(share * (values.length - 1))];
        const reach = 3 * (at(0.75) - at(0.25));
        const [low, high] = [Math.max(at(0), at(0.25) - reach), Math.min(at(1), at(0.75) + reach)];
        return high > low ? [low, high] : [low - 1, low + 1];
      });
      const margin = 10;
      const place = (value, [low, high], length) => margin + Math.min(Math.max((value - low) / (high - low), 0), 1) * (length - 2 * margin);
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.clearRect(0, 0, size.width, size.height);
      const counts = new Map();
      // The set of known classes first, so that the others lie on top.
      points = [...shown].sort((a, b) => a.sample.set - b.sample.set).map(({ sample, index }) => {
        const [x, y] = sample.at[which];
        const [paint, name] = groups[colour.value](sample);
        const count = counts.get(name) ?? [paint, 0];
        count[1] += 1;
        counts.set(name, count);
        const point = { sample, index, x: place(x, limits[0], size.width), y: size.height - place(y, limits[1], size.height) };
        context.fillStyle = paint;
        context.globalAlpha = 0.75;
        context.beginPath();
        context.arc(point.x, point.y, sample.thumbnail === null ? 2 : 3, 0, 7);
        context.fill();
        return point;
      });
      key.replaceChildren();
      const listed = [...counts].sort((a, b) => b[1][1] - a[1][1]);
      for (const [name, [paint, count]] of listed.slice(0, 24)) {
        const item = element("li", undefined, key);
        element("span", undefined, item, "swatch").style.background = paint;
        item.append(name + " (" + count + ")");
      }
      if (listed.length > 24) element("li", "and " + (listed.length - 24) + " more", key);
      const [name, explained] = data.maps[which];
      map.querySelector(".about").textContent =
        (name === "pca"
          ? "The two directions in which features of known images vary most"
          : "The two directions in which the means of the classes differ most") +
        "; they hold " + percent(explained[0]) + " and " + percent(explained[1]) + " of that variance. " + shown.length +
        " images; point at one to see it. Larger points have a thumbnail.";
    };
    const nearest = (event) => {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      let best = null;
      for (const point of points) {
        const distance = Math.hypot(point.x - x, point.y - y);
        if (distance < 14 && (!best || distance < best.distance)) best = { point, distance };
      }
      return best?.point;
    };
    canvas.addEventListener("pointermove", (event) => {
      const point = nearest(event);
      hover.hidden = !point;
      if (!point) return;
      hover.replaceChildren();
      if (point.sample.thumbnail !== null) thumb(point.sample, hover);
      const list = element("dl", undefined, hover);
      for (const [name, value] of facts(point.sample)) {
        element("dt", name, list);
        element("dd", value, list);
      }
      const box = map.getBoundingClientRect();
      const left = Math.min(event.clientX - box.left + 14, box.width - hover.offsetWidth);
      hover.style.left = Math.max(left, 0) + "px";
      hover.style.top = event.clientY - box.top + 14 + "px";
    });
    canvas.addEventListener("pointerleave", () => (hover.hidden = true));
    canvas.addEventListener("click", (event) => {
      const point = nearest(event);
      if (point) open(point.index);
    });
    for (const select of [projection, colour]) select.addEventListener("change", draw);
    addEventListener("resize", draw);
    draw();
  }
}
