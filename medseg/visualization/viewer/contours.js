// Contours of labels: lines along the edges of their voxels in each plane, on a canvas over NiiVue's.
// NiiVue's own outlines mark the voxels of a border in 3D, and so fill a region where the next slice has none.

const IN_PLANE = [[0, 1], [0, 2], [1, 2]]; // axes of the axial, coronal and sagittal plane: to the side, and up
const LINE = 1.5; // thickness in CSS pixels

// Where fractions (0 to 1) of the volume along the two axes of a plane lie on the canvas.
const corners = (view, tile) => {
  const place = fraction => {
    const mm = view.frac2mm(fraction), [side, up] = IN_PLANE[tile.axCorSag];
    const [left, top, width, height] = tile.leftTopWidthHeight;
    const across = (mm[side] - tile.leftTopMM[0]) / tile.fovMM[0];
    return [left + across * width, top + (1 - (mm[up] - tile.leftTopMM[1]) / tile.fovMM[1]) * height];
  };
  return [place([0, 0, 0]), place([1, 1, 1])];
};

const plane = (layer, axis, at) => {
  const { img, img2RASstart: start, img2RASstep: step, dimsRAS: size } = layer;
  const [side, up] = IN_PLANE[axis], columns = size[side + 1], rows = size[up + 1];
  const values = new Uint16Array(columns * rows);
  const first = start[0] + start[1] + start[2] + at * step[2 - axis];
  for (let row = 0, n = 0; row < rows; row += 1)
    for (let column = 0; column < columns; column += 1, n += 1)
      values[n] = img[first + row * step[up] + column * step[side]];
  return { values, columns, rows };
};

const trace = (pen, { values, columns, rows }, [[left, bottom], [right, top]], colours, thick) => {
  const x = column => left + (right - left) * column / columns, y = row => bottom + (top - bottom) * row / rows;
  const inX = Math.sign(right - left) * thick / 2, inY = Math.sign(top - bottom) * thick / 2;
  const lines = new Map([...colours.keys()].map(value => [value, new Path2D()]));
  const line = (path, x0, y0, x1, y1) => { path.moveTo(x0, y0); path.lineTo(x1, y1); };
  for (let row = 0; row < rows; row += 1) for (let column = 0; column < columns; column += 1) {
    const at = row * columns + column, value = values[at], path = lines.get(value);
    if (!path) continue;
    const x0 = x(column), x1 = x(column + 1), y0 = y(row), y1 = y(row + 1);
    if (!column || values[at - 1] !== value) line(path, x0 + inX, y0 + inY, x0 + inX, y1 - inY);
    if (column + 1 === columns || values[at + 1] !== value) line(path, x1 - inX, y0 + inY, x1 - inX, y1 - inY);
    if (!row || values[at - columns] !== value) line(path, x0 + inX, y0 + inY, x1 - inX, y0 + inY);
    if (row + 1 === rows || values[at + columns] !== value) line(path, x0 + inX, y1 - inY, x1 - inX, y1 - inY);
  }
  pen.lineWidth = thick;
  pen.lineCap = "square";
  for (const [value, path] of lines) {
    pen.strokeStyle = colours.get(value);
    pen.stroke(path);
  }
};

// Draws contours whenever the view is drawn. `wanted()` gives the layer, its colours by value, and the opacity; or null.
export const addContours = (view, canvas, over, wanted) => {
  const drawScene = view.drawScene.bind(view);
  view.drawScene = () => {
    const drawn = drawScene();
    if (over.width !== canvas.width || over.height !== canvas.height) {
      over.width = canvas.width;
      over.height = canvas.height;
    }
    const pen = over.getContext("2d"), ask = view.volumes.length ? wanted() : null;
    pen.clearRect(0, 0, over.width, over.height);
    if (!ask) return drawn;
    pen.globalAlpha = ask.opacity;
    const thick = LINE * (view.uiData.dpr || 1), now = view.frac2vox(view.scene.crosshairPos);
    for (const tile of view.screenSlices) {
      if (tile.axCorSag > 2) continue;
      const [left, top, width, height] = tile.leftTopWidthHeight;
      pen.save();
      pen.beginPath();
      pen.rect(Math.min(left, left + width), top, Math.abs(width), height);
      pen.clip();
      trace(pen, plane(ask.layer, tile.axCorSag, now[2 - tile.axCorSag]), corners(view, tile), ask.colours, thick);
      pen.restore();
    }
    return drawn;
  };
};
