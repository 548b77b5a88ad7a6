// The explorer: modules of MNIST FC1 in the page. No dependencies, no requests. The numbers are those of
// explorer_data.js (modlib.study.explorer); the functions above "The page" know nothing of the page, and tests run them.
(function () {
  "use strict";

  const SIDE = 28;
  const BOX = 20; // MNIST's digits fill a box of 20 x 20 pixels
  const PEN = 2.4; // the width of their strokes, in pixels
  const PACKED = 8;

  // ---- What the modules say ----

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  function floats(text) {
    return new Float32Array(bytes(text).buffer);
  }

  // The first edge is in the highest bit, as numpy.packbits writes it.
  function bits(packed, start, count) {
    return Uint8Array.from({ length: count }, (_, i) => (packed[start + (i >> 3)] >> (7 - (i & 7))) & 1);
  }

  function readLayers(data) {
    return data.layers.map((layer) => ({
      out: layer.out,
      in: layer.in,
      weight: floats(layer.weight),
      bias: floats(layer.bias),
    }));
  }

  // masks[c] has a mask for each layer, one number an edge; grafting[c] is "this class" minus "another".
  function readModules(stored, layers) {
    const packed = stored.masks.map(bytes);
    const weight = floats(stored.grafting_weight);
    const bias = floats(stored.grafting_bias);
    const logits = layers[layers.length - 1].out;
    const classes = bias.length / 2;
    const masks = [];
    const grafting = [];
    for (let c = 0; c < classes; c++) {
      masks.push(
        layers.map((layer, l) => {
          const edges = layer.weight.length;
          return bits(packed[l], c * Math.ceil(edges / PACKED), edges);
        })
      );
      const other = weight.subarray(2 * c * logits, (2 * c + 1) * logits);
      const own = weight.subarray((2 * c + 1) * logits, (2 * c + 2) * logits);
      grafting.push({ weight: Array.from(own, (w, j) => w - other[j]), bias: bias[2 * c + 1] - bias[2 * c] });
    }
    return { name: stored.name, right: stored.right, masks, grafting };
  }

  function passed(layers, inputs, masks) {
    let values = inputs;
    layers.forEach((layer, l) => {
      const next = new Float64Array(layer.out);
      for (let i = 0; i < layer.out; i++) {
        let sum = layer.bias[i];
        const row = i * layer.in;
        for (let j = 0; j < layer.in; j++) {
          if (masks === null || masks[l][row + j]) sum += layer.weight[row + j] * values[j];
        }
        next[i] = l < layers.length - 1 ? Math.max(0, sum) : sum;
      }
      values = next;
    });
    return values;
  }

  function parentLogits(layers, inputs) {
    return Array.from(passed(layers, inputs, null));
  }

  function logOdds(layers, modules, inputs) {
    return modules.grafting.map((graft, c) => {
      const logits = passed(layers, inputs, modules.masks[c]);
      return graft.weight.reduce((sum, w, j) => sum + w * logits[j], graft.bias);
    });
  }

  function confidence(odds) {
    return 1 / (1 + Math.exp(-odds));
  }

  function winner(scores, subset) {
    return subset.reduce((best, c) => (scores[c] > scores[best] ? c : best), subset[0]);
  }

  // Pixels 0..255, row by row -> what the network takes.
  function normalised(pixels, data) {
    return Float64Array.from(pixels, (v) => (v / 255 - data.mean) / data.std);
  }

  // ---- What the masks keep ----

  function countEdges(modules, keeps) {
    let count = 0;
    modules.masks[0].forEach((mask, l) => {
      for (let i = 0; i < mask.length; i++) if (keeps(l, i)) count++;
    });
    return count;
  }

  function union(modules, subset) {
    return countEdges(modules, (l, i) => subset.some((c) => modules.masks[c][l][i]));
  }

  function remaining(layers, modules, subset) {
    return union(modules, subset) / weights(layers);
  }

  function jaccard(modules) {
    const both = (a, b) => countEdges(modules, (l, i) => modules.masks[a][l][i] && modules.masks[b][l][i]);
    return modules.masks.map((_, a) => modules.masks.map((_, b) => both(a, b) / union(modules, [a, b])));
  }

  function weights(layers) {
    return layers.reduce((sum, layer) => sum + layer.weight.length, 0);
  }

  function parentBytes(layers) {
    return 4 * layers.reduce((sum, layer) => sum + layer.weight.length + layer.bias.length, 0);
  }

  // As modlib.study.comparison.cost counts them: weights of the union, biases and grafting layers in float32, a bit for
  // each of the parent's weights, and one for each weight of the union and module where there is more than one mask.
  function recomposedBytes(layers, modules, subset) {
    const held = union(modules, subset);
    const all = weights(layers);
    const grafts = 2 * (layers[layers.length - 1].out + 1) * subset.length;
    const numbers = 4 * (held + parentBytes(layers) / 4 - all + grafts);
    const where = held < all ? Math.floor(all / PACKED) : 0;
    const first = modules.masks[subset[0]];
    const differ = countEdges(modules, (l, i) => subset.some((c) => modules.masks[c][l][i] !== first[l][i]));
    return numbers + where + (differ ? Math.floor((subset.length * held) / PACKED) : 0);
  }

  // How many edges of the first layer start at each pixel.
  function heat(layers, modules, c) {
    const counts = new Uint16Array(layers[0].in);
    modules.masks[c][0].forEach((kept, i) => {
      counts[i % layers[0].in] += kept;
    });
    return counts;
  }

  // Test images of a subset, and how many of them modules and restricted parent get right.
  function counted(data, modules, subset) {
    const at = subset.reduce((sum, c) => sum + 2 ** c, 0) - 1;
    const images = subset.reduce((sum, c) => sum + data.images[c], 0);
    return { images, right: modules.right[at], parentRight: data.parent_right[at] };
  }

  // ---- A drawing as one of MNIST's images ----

  function squaredDistance(x, y, a, b) {
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const length = dx * dx + dy * dy;
    const t = length ? Math.max(0, Math.min(1, ((x - a[0]) * dx + (y - a[1]) * dy) / length)) : 0;
    return (x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2;
  }

  function inked(strokes) {
    return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => {
      const [x, y] = [(i % SIDE) + 0.5, Math.floor(i / SIDE) + 0.5];
      let nearest = Infinity;
      for (const stroke of strokes) {
        for (let j = 0; j < stroke.length; j++) {
          nearest = Math.min(nearest, squaredDistance(x, y, stroke[Math.max(0, j - 1)], stroke[j]));
        }
      }
      return Math.round(255 * Math.max(0, Math.min(1, PEN / 2 + 0.5 - Math.sqrt(nearest))));
    });
  }

  function moved(strokes, scale, dx, dy) {
    return strokes.map((stroke) => stroke.map(([x, y]) => [x * scale + dx, y * scale + dy]));
  }

  function centre(pixels) {
    let [sum, x, y] = [0, 0, 0];
    pixels.forEach((v, i) => {
      sum += v;
      x += v * ((i % SIDE) + 0.5);
      y += v * (Math.floor(i / SIDE) + 0.5);
    });
    return [x / sum, y / sum];
  }

  // Strokes, lists of points in any unit -> 28 x 28 pixels 0..255: the longer side fills MNIST's box, and the centre
  // of mass lies in the middle.
  function asMnist(strokes) {
    const points = strokes.flat();
    if (!points.length) return new Uint8Array(SIDE * SIDE);
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const longest = Math.max(right - left, bottom - top);
    const scale = longest > 0 ? (BOX - PEN) / longest : 1;
    const middle = SIDE / 2;
    const fitted = moved(strokes, scale, middle - (scale * (left + right)) / 2, middle - (scale * (top + bottom)) / 2);
    const [x, y] = centre(inked(fitted));
    return inked(moved(fitted, 1, middle - x, middle - y));
  }

  // Points on an ellipse; angles in degrees, clockwise from the right.
  function arc(x, y, rx, ry, from, to) {
    return Array.from({ length: 25 }, (_, i) => {
      const angle = ((from + ((to - from) * i) / 24) * Math.PI) / 180;
      return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
    });
  }

  // Digits to start from, in a box of 100 x 100: whoever has no pointer needs no drawing.
  const EXAMPLES = [
    [arc(50, 50, 22, 32, -90, 270)],
    [[[56, 16], [46, 84]]],
    [[...arc(50, 36, 21, 20, -170, 30), [30, 82], [74, 82]]],
    [[...arc(46, 34, 20, 17, -150, 90), ...arc(46, 66, 23, 17, -90, 150)]],
    [[[34, 18], [28, 54], [72, 52]], [[66, 20], [62, 84]]],
    [[[70, 18], [38, 18], [34, 46], ...arc(48, 62, 21, 21, -110, 140)]],
    [[[62, 16], [42, 40], ...arc(50, 64, 19, 19, 200, 540)]],
    [[[28, 20], [72, 20], [46, 84]]],
    [[...arc(50, 33, 16, 16, 90, 450), ...arc(50, 67, 19, 18, -90, 270)]],
    [[...arc(48, 36, 18, 18, 0, 360), [64, 40], [58, 84]]],
  ];

  const pure = {
    readLayers, readModules, parentLogits, logOdds, confidence, winner, normalised, union, remaining, jaccard,
    parentBytes, recomposedBytes, heat, counted, asMnist, EXAMPLES,
  };
  if (typeof module !== "undefined") module.exports = pure;
  if (typeof document === "undefined") return;

  // ---- The page ----

  const DRAWN = 280;
  const STEP = 6;

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
  const sureness = (share) => (share > 0.9995 ? "over 99.9%" : share < 0.0005 ? "under 0.1%" : percent(share));
  const kilobytes = (count) => `${(count / 1000).toFixed(1)} kB`;
  const signed = (points) => `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(2)}`;
  const listed = (subset) =>
    subset.length === 10 ? "all ten classes" : `class${subset.length > 1 ? "es" : ""} ${subset.join(", ")}`;

  function table(caption, headers, rows) {
    const head = element("tr", {}, ...headers.map((text) => element("th", { scope: "col" }, text)));
    const body = rows.map(({ cells, current }) =>
      element(
        "tr",
        current ? { class: "current", "aria-current": "true" } : {},
        ...cells.map((text, i) => (i ? element("td", {}, text) : element("th", { scope: "row" }, text)))
      )
    );
    const parts = [element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body)];
    return element("table", { class: "explorer-table" }, ...parts);
  }

  function start(data, root) {
    const layers = readLayers(data);
    const decomposed = data.modules.map((stored) => readModules(stored, layers));
    const classes = data.images.map((_, c) => c);
    const state = { modules: decomposed[0], subset: new Set([1, 7]), strokes: [], pixels: null };
    const chosen = () => classes.filter((c) => state.subset.has(c));

    // ---- Choosing classes ----

    const boxes = classes.map((c) =>
      element("input", {
        type: "checkbox",
        checked: state.subset.has(c),
        onchange: (event) => choose(event.target.checked ? [...state.subset, c] : chosen().filter((d) => d !== c)),
      })
    );
    const radios = decomposed.map((modules, i) =>
      element("input", {
        type: "radio",
        name: "explorer-modules",
        checked: i === 0,
        onchange: () => {
          state.modules = modules;
          showAll();
        },
      })
    );
    const status = element("p", { role: "status" });
    const sizes = element("div");
    root("classes").replaceChildren(
      element(
        "fieldset",
        {},
        element("legend", {}, "Classes"),
        element("div", { class: "ticks" }, ...boxes.map((box, c) => element("label", {}, box, ` ${c}`))),
        element("button", { type: "button", onclick: () => choose(classes) }, "all ten"),
        " ",
        element("button", { type: "button", onclick: () => choose([]) }, "none")
      ),
      element(
        "fieldset",
        {},
        element("legend", {}, "Modules"),
        ...radios.map((radio, i) =>
          element("label", { class: "line" }, radio, ` ${decomposed[i].name.replace("alpha", "α")}`)
        )
      ),
      status,
      sizes
    );

    function choose(subset) {
      state.subset = new Set(subset);
      boxes.forEach((box, c) => (box.checked = state.subset.has(c)));
      showAll();
    }

    function showSizes() {
      const subset = chosen();
      if (!subset.length) {
        status.textContent = "Tick a class.";
        sizes.replaceChildren();
        return;
      }
      const share = remaining(layers, state.modules, subset);
      const size = recomposedBytes(layers, state.modules, subset);
      const { images, right, parentRight } = counted(data, state.modules, subset);
      const votes = subset.length > 1;
      const points = (100 * (right - parentRight)) / images;
      const said = votes
        ? `${percent(right / images, 2)} of ${images.toLocaleString("en")} test images right, ${signed(points)} ` +
          "points against the parent restricted to these classes."
        : "A single class leaves nothing to vote on: tick a second one.";
      const name = listed(subset);
      const title = name[0].toUpperCase() + name.slice(1);
      status.textContent = `${title}: ${percent(share)} of the weights, ${kilobytes(size)}. ${said}`;
      const shown = (count) => (votes ? percent(count / images, 2) : "–");
      const rows = [
        { cells: ["parent", "100%", kilobytes(parentBytes(layers)), shown(parentRight)] },
        { cells: ["modules", percent(share), kilobytes(size), shown(right)], current: true },
      ];
      const channels = data.fc1_channels[subset.join("")];
      if (channels) {
        const held = channels[0] * parentBytes(layers);
        rows.push({ cells: ["channels cut out", percent(channels[0]), kilobytes(held), percent(channels[1], 2)] });
      }
      sizes.replaceChildren(table("Size and accuracy", ["network", "kept", "size", "right"], rows));
      if (!channels) {
        const text = "Channels cut out of the parent are stored for all pairs and for some subsets of five classes.";
        sizes.append(element("p", { class: "note" }, text));
      }
    }

    // ---- Overlaps and first layers ----

    function showOverlaps() {
      state.modules.overlaps = state.modules.overlaps || jaccard(state.modules);
      const headers = classes.map((c) => element("th", { scope: "col" }, `${c}`));
      const rows = classes.map((a) => {
        const cells = classes.map((b) => {
          const share = state.modules.overlaps[a][b];
          const text = a === b ? "1" : share.toFixed(2).slice(1);
          const faint = state.subset.has(a) && state.subset.has(b) ? "" : "faint";
          const style = `--share: ${share.toFixed(3)}`;
          return element("td", { class: faint, style }, text);
        });
        return element("tr", {}, element("th", { scope: "row" }, `${a}`), ...cells);
      });
      const caption = "Edges that two modules share, of those that either keeps (Jaccard index)";
      root("overlaps").replaceChildren(
        element(
          "table",
          { class: "explorer-table explorer-matrix" },
          element("caption", {}, caption),
          element("thead", {}, element("tr", {}, element("td"), ...headers)),
          element("tbody", {}, ...rows)
        )
      );
    }

    // The digit in blue, the edges over it in orange.
    function showHeat() {
      const counts = classes.map((c) => heat(layers, state.modules, c));
      const most = Math.max(...counts.map((each) => Math.max(...each)));
      const maps = classes.map((c) => {
        const read = counts[c].filter((count) => count).length;
        const label = `Module ${c}: edges from ${read} of ${SIDE * SIDE} pixels, at most ${Math.max(...counts[c])} each`;
        const canvas = element("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });
        paint(canvas, (i) => {
          const edge = counts[c][i] / most;
          const ink = (1 - edge) * (state.pixels[i] / 255);
          return [255 * edge + 60 * ink, 150 * edge + 130 * ink, 230 * ink];
        });
        const faint = state.subset.has(c) ? "" : "faint";
        return element("figure", { class: faint }, canvas, element("figcaption", {}, `module ${c}`));
      });
      root("heat").replaceChildren(...maps);
    }

    function paint(canvas, colour) {
      const context = canvas.getContext("2d");
      const image = context.createImageData(SIDE, SIDE);
      for (let i = 0; i < SIDE * SIDE; i++) image.data.set([...colour(i), 255], 4 * i);
      context.putImageData(image, 0, 0);
    }

    // ---- Drawing ----

    const help = element(
      "p",
      { id: "explorer-help", class: "note" },
      "Draw with a finger, a pen or the mouse. On a keyboard: arrow keys move the pen, space puts it down and lifts it. " +
        "Or take one of the digits below."
    );
    const canvas = element("canvas", {
      width: DRAWN,
      height: DRAWN,
      tabindex: "0",
      role: "application",
      "aria-label": "Drawing area for a digit",
      "aria-describedby": "explorer-help",
    });
    const seen = element("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "What the network sees" });
    const vote = element("p", { role: "status" });
    const bars = element("ol", { class: "bars", "aria-label": "Confidence of every module" });
    const digits = EXAMPLES.map((strokes, c) =>
      element("button", { type: "button", "aria-label": `Draw the digit ${c}`, onclick: () => draw(strokes) }, `${c}`)
    );
    root("draw").replaceChildren(
      element(
        "div",
        { class: "drawing" },
        element("div", {}, canvas),
        element("div", {}, element("figure", {}, seen, element("figcaption", {}, "what the network sees")), vote)
      ),
      help,
      element(
        "p",
        { class: "buttons" },
        element("button", { type: "button", onclick: () => draw([]) }, "clear"),
        ...digits
      ),
      bars
    );
    const pen = { down: false, at: [DRAWN / 2, DRAWN / 2], keys: false, shown: false };

    function draw(strokes) {
      state.strokes = strokes.map((stroke) => stroke.map(([x, y]) => [(x * DRAWN) / 100, (y * DRAWN) / 100]));
      Object.assign(pen, { keys: false, shown: false });
      showDrawing(true);
    }

    function showDrawing(settled) {
      const context = canvas.getContext("2d");
      context.fillStyle = "#000";
      context.fillRect(0, 0, DRAWN, DRAWN);
      Object.assign(context, { strokeStyle: "#fff", lineWidth: 20, lineCap: "round", lineJoin: "round" });
      for (const stroke of state.strokes) {
        context.beginPath();
        stroke.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
        if (stroke.length === 1) context.lineTo(...stroke[0]);
        context.stroke();
      }
      if (pen.shown) {
        context.fillStyle = pen.keys ? "#e69f00" : "#56b4e9";
        context.fillRect(pen.at[0] - 4, pen.at[1] - 4, 8, 8);
      }
      state.pixels = asMnist(state.strokes);
      paint(seen, (i) => Array(3).fill(state.pixels[i]));
      showVote(settled);
      if (settled) showHeat();
    }

    // `settled`: screen readers hear of a drawing that is done, not of each of its points.
    function showVote(settled) {
      const inputs = normalised(state.pixels, data);
      const odds = logOdds(layers, state.modules, inputs);
      const subset = chosen();
      const won = subset.length && state.strokes.length ? winner(odds, subset) : null;
      bars.replaceChildren(
        ...classes.map((c) => {
          const share = confidence(odds[c]);
          const inside = state.subset.has(c);
          const kind = c === won ? "won" : inside ? "" : "faint";
          const text = `${sureness(share)}${c === won ? ", wins" : inside ? "" : ", not ticked"}`;
          return element(
            "li",
            { class: kind },
            element("span", { class: "name" }, `module ${c}`),
            element("span", { class: "bar", "aria-hidden": "true" }, element("span", { style: `width: ${100 * share}%` })),
            element("span", { class: "value" }, text)
          );
        })
      );
      if (!settled) return;
      if (won === null) {
        vote.textContent = subset.length ? "Draw a digit." : "Tick a class above.";
        return;
      }
      const sure = confidence(odds[won]);
      const refused = sure < 0.5 ? " Every module says “another class”; the vote takes the least unsure." : "";
      const parent = winner(parentLogits(layers, inputs), subset);
      vote.textContent =
        `Among ${listed(subset)} the vote says ${won}, with a confidence of ${sureness(sure)}.${refused} ` +
        `The parent, restricted to them, says ${parent}.`;
    }

    function whereOf(event) {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * DRAWN) / box.width, ((event.clientY - box.top) * DRAWN) / box.height];
    }

    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      Object.assign(pen, { down: true, keys: false, shown: false });
      state.strokes = [...state.strokes, [whereOf(event)]];
      showDrawing(false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!pen.down) return;
      state.strokes[state.strokes.length - 1].push(whereOf(event));
      showDrawing(false);
    });
    ["pointerup", "pointercancel"].forEach((name) =>
      canvas.addEventListener(name, () => {
        if (pen.down) showDrawing(true);
        pen.down = false;
      })
    );
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
      if (!by && event.key !== " ") return;
      event.preventDefault();
      pen.shown = true;
      if (by) pen.at = pen.at.map((v, i) => Math.max(0, Math.min(DRAWN, v + by[i])));
      else pen.keys = !pen.keys;
      if (pen.keys && by) state.strokes[state.strokes.length - 1].push(pen.at);
      else if (pen.keys) state.strokes = [...state.strokes, [pen.at]];
      showDrawing(!pen.keys);
    });
    canvas.addEventListener("blur", () => {
      if (!pen.shown) return;
      Object.assign(pen, { keys: false, shown: false });
      showDrawing(true);
    });

    // ---- k and alpha ----

    const values = (name) => [...new Set(data.grid.map((run) => run[name]))].sort((a, b) => a - b);
    const settings = { k: values("k"), alpha: values("alpha") };
    const words = { k: (v) => `k = ${percent(v, 0)}`, alpha: (v) => `α = ${v}` };
    const sliders = {};
    const runStatus = element("p", { role: "status" });
    const chart = element("div", { class: "chart" });
    const controls = ["k", "alpha"].map((name) => {
      const output = element("output", {});
      const slider = element("input", { type: "range", min: 0, max: settings[name].length - 1, step: 1, value: 1 });
      slider.addEventListener("input", showRun);
      sliders[name] = { slider, output };
      const label = { k: "k, share of the edges that a module keeps", alpha: "α, weight of stemming" }[name];
      return element("label", { class: "line" }, element("span", {}, label), slider, " ", output);
    });
    const last = (measured) => measured[measured.length - 1];
    const marks = data.marks.map(
      (one) =>
        `${one.name.replace("alpha", "α")} (n = ${one.trials}): ${percent(last(one.all))} of the weights, ` +
        `${percent(last(one.accuracy), 2)} right`
    );
    const note = element("p", { class: "note" }, `In blue, all ten classes of ${marks.join("; ")}.`);
    root("runs").replaceChildren(element("div", {}, ...controls), runStatus, chart, note);

    function showRun() {
      const now = {};
      for (const [name, { slider, output }] of Object.entries(sliders)) {
        now[name] = settings[name][Number(slider.value)];
        output.textContent = words[name](now[name]);
        slider.setAttribute("aria-valuetext", words[name](now[name]));
      }
      const run = data.grid.find((one) => one.k === now.k && one.alpha === now.alpha);
      runStatus.textContent =
        `Published recipe, ${words.k(run.k)}, ${words.alpha(run.alpha)}, ${run.all.length} epochs, n = ${run.trials}: ` +
        `two classes hold ${percent(last(run.pairs))} of the weights (mean over pairs), all ten ` +
        `${percent(last(run.all))}. All ten together get ${percent(last(run.accuracy), 2)} of the test images right, ` +
        `their parent ${percent(run.parent, 2)}.`;
      chart.replaceChildren(curves(data, run, runStatus.textContent));
    }

    function showAll() {
      showSizes();
      showOverlaps();
      showHeat();
      showVote(true);
      showLarger();
    }

    // ---- The larger network, as stored ----

    function showLarger() {
      const rows = data.vgg16_channels.map((one) => ({
        cells: [
          `${one.classes} (n = ${one.subsets})`,
          percent(one.parameters),
          signed(100 * (one.accuracy - one.parent_accuracy)),
          `${(one.kB / 1000).toFixed(1)} MB`,
          `${one.ms.toFixed(2)} ms`,
          `${one.faster.toFixed(1)}×`,
        ],
        current: one.classes === state.subset.size,
      }));
      const headers = ["classes", "kept", "points", "size", "1 image", "faster"];
      const caption =
        "Channels cut out of CIFAR-10's VGG16. Kept, of the parameters, and points against the restricted parent: " +
        "means over n subsets, test images. Size and milliseconds: one of these networks, in ONNX Runtime on one " +
        "thread; faster: times, against the parent.";
      root("vgg16").replaceChildren(table(caption, headers, rows));
    }

    draw(EXAMPLES[7]);
    showAll();
    showRun();
  }

  // What the page's own parser calls SVG.
  function namespace() {
    const holder = document.createElement("div");
    holder.innerHTML = "<svg></svg>";
    return holder.firstChild.namespaceURI;
  }

  function drawn(tag, attributes, text) {
    const made = document.createElementNS(namespace(), tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  }

  // Accuracy of all ten classes over the size of their union: a line from the first epoch to the last for each run.
  function curves(data, run, label) {
    const [width, height, left, bottom] = [360, 250, 42, 36];
    const all = [...data.grid, ...data.marks];
    const most = Math.ceil(20 * Math.max(...all.flatMap((one) => one.all))) / 20;
    const least = Math.floor(50 * Math.min(...all.flatMap((one) => one.accuracy))) / 50;
    const x = (share) => left + ((width - left - 8) * share) / most;
    const y = (share) => 8 + ((height - bottom - 8) * (1 - share)) / (1 - least);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    for (let share = 0; share <= most + 1e-9; share += 0.1) {
      svg.append(drawn("line", { x1: x(share), x2: x(share), y1: 8, y2: height - bottom, class: "grid" }));
      svg.append(drawn("text", { x: x(share), y: height - bottom + 14, "text-anchor": "middle" }, percent(share, 0)));
    }
    for (let share = least; share <= 1 + 1e-9; share += 0.02) {
      svg.append(drawn("line", { x1: left, x2: width - 8, y1: y(share), y2: y(share), class: "grid" }));
      svg.append(drawn("text", { x: left - 5, y: y(share) + 4, "text-anchor": "end" }, percent(share, 0)));
    }
    const line = (one, kind) => {
      const points = one.all.map((share, i) => `${x(share).toFixed(1)},${y(one.accuracy[i]).toFixed(1)}`);
      const end = points[points.length - 1].split(",");
      svg.append(drawn("polyline", { points: points.join(" "), class: kind }));
      svg.append(drawn("circle", { cx: end[0], cy: end[1], r: kind === "other" ? 2.5 : 4.5, class: kind }));
    };
    data.grid.filter((one) => one !== run).forEach((one) => line(one, "other"));
    data.marks.forEach((one) => line(one, "ours"));
    line(run, "this");
    svg.append(drawn("line", { x1: left, x2: width - 8, y1: y(run.parent), y2: y(run.parent), class: "parent" }));
    const names = [["this", "this run"], ["other", "other k and α"], ["ours", "ours"], ["parent", "parent"]];
    names.forEach(([kind, name], i) => {
      const at = height - bottom - 58 + 14 * i;
      svg.append(drawn("line", { x1: width - 108, x2: width - 92, y1: at - 4, y2: at - 4, class: kind }));
      svg.append(drawn("text", { x: width - 86, y: at }, name));
    });
    const middle = (left + width) / 2;
    svg.append(drawn("text", { x: middle, y: height - 5, "text-anchor": "middle" }, "weights in the union of all ten"));
    return svg;
  }

  const data = window.MODLIB_EXPLORER;
  if (data) start(data, (name) => document.getElementById(`explorer-${name}`));
})();
