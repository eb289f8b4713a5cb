// The letters of the patient's sides, inside the picture of each plane, on a dark plate so that they can be read
// on bone and on the crosshair. NiiVue's own letters lie beside the edge or amid the picture when one plane is shown.

const EDGE = 4; // pixels between a letter and the edge of the picture

export const lettersOf = axis => [...(axis === 2 ? "AP" : "RL"), ...(axis === 0 ? "AP" : "SI")];

export const addLetters = (view, canvas) => {
  view.drawSliceOrientationText = ([left, top, width, height], axis) => {
    view.gl.viewport(0, 0, canvas.width, canvas.height);
    const size = view.fontPx, places = [[0, 0.5], [1, 0.5], [0.5, 0], [0.5, 1]];
    lettersOf(axis).forEach((letter, number) => {
      const [across, down] = places[number], wide = view.textWidth(size, letter);
      const x = Math.min(left, left + width) + EDGE + across * (Math.abs(width) - wide - 2 * EDGE);
      const y = top + EDGE + down * (height - size - 2 * EDGE);
      view.drawRect([x - EDGE, y - 1, wide + 2 * EDGE, size + 2], [0, 0, 0, 0.8]);
      view.drawText([x, y], letter, 1, [1, 1, 1, 1]);
    });
  };
};
