// Where each box of the host map is. Pure: no canvas, no DOM.

export type Cell = { id: string; site: string };

/** Block is the rectangle of one site, with its boxes row by row. */
export type Block = {
  site: string;
  x: number;
  y: number; // of the first row of boxes; the label is above
  width: number;
  columns: number;
  first: number; // index of its first box
  count: number;
};

export type Layout = {
  cell: number; // edge of a box with its gap, CSS pixels
  labels: boolean;
  width: number;
  height: number;
  blocks: Block[];
};

const labelHeight = 20;
const labelMin = 88; // a site's name needs about this much
const gap = 14; // between sites

/** cellSize gives few boxes room for a number and many boxes a place at all. */
export function cellSize(count: number): number {
  if (count <= 60) return 44;
  if (count <= 400) return 28;
  if (count <= 3000) return 16;
  return 9;
}

/** layout places boxes, which must be grouped by site already, into width. */
export function layout(cells: readonly Cell[], width: number): Layout {
  const cell = cellSize(cells.length);
  const groups: { site: string; first: number; count: number }[] = [];
  cells.forEach((box, index) => {
    const last = groups.at(-1);
    if (last && last.site === box.site) last.count++;
    else groups.push({ site: box.site, first: index, count: 1 });
  });
  const labels = groups.length <= 120;
  const head = labels ? labelHeight : 0;
  const most = Math.max(1, Math.floor(width / cell));
  const blocks: Block[] = [];
  let x = 0;
  let y = head;
  let rowHeight = 0;
  for (const group of groups) {
    // About twice as wide as high, so that a row of sites fills well.
    const columns = Math.min(most, group.count, Math.max(4, Math.ceil(Math.sqrt(group.count * 2))));
    const blockWidth = Math.min(width, Math.max(columns * cell, labels ? labelMin : 0));
    const height = Math.ceil(group.count / columns) * cell;
    if (x > 0 && x + blockWidth > width) {
      x = 0;
      y += rowHeight + head + gap / 2;
      rowHeight = 0;
    }
    blocks.push({ ...group, x, y, width: blockWidth, columns });
    x += blockWidth + gap;
    rowHeight = Math.max(rowHeight, height);
  }
  return { cell, labels, width, height: y + rowHeight, blocks };
}

/** place is the upper left corner of a box. */
export function place(plan: Layout, index: number): { x: number; y: number } {
  const block = blockOf(plan, index);
  if (!block) return { x: 0, y: 0 };
  const k = index - block.first;
  return {
    x: block.x + (k % block.columns) * plan.cell,
    y: block.y + Math.floor(k / block.columns) * plan.cell,
  };
}

function blockOf(plan: Layout, index: number): Block | undefined {
  let low = 0;
  let high = plan.blocks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((plan.blocks[middle] as Block).first <= index) low = middle;
    else high = middle - 1;
  }
  return plan.blocks[low];
}

/** hit is the index of the box at a point, -1 for none. */
export function hit(plan: Layout, x: number, y: number): number {
  for (const block of plan.blocks) {
    const column = Math.floor((x - block.x) / plan.cell);
    const row = Math.floor((y - block.y) / plan.cell);
    if (column < 0 || row < 0 || column >= block.columns) continue;
    const k = row * block.columns + column;
    if (k < block.count) return block.first + k;
  }
  return -1;
}

/** move is where an arrow key leads: left and right by order, up and down by place. */
export function move(plan: Layout, index: number, key: string, count: number): number {
  if (count === 0) return -1;
  if (index < 0) return 0;
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (key === "ArrowRight") return Math.min(count - 1, index + 1);
  if (key === "ArrowLeft") return Math.max(0, index - 1);
  const sign = key === "ArrowDown" ? 1 : -1;
  const from = place(plan, index);
  let best = index;
  let bestScore = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; i++) {
    const to = place(plan, i);
    const dy = (to.y - from.y) * sign;
    if (dy <= 0) continue;
    const score = dy * 4 + Math.abs(to.x - from.x);
    if (score < bestScore) {
      bestScore = score;
      best = i;
    }
  }
  return best;
}

/** nextWhere is the next index after start, going round, that passes; -1 for none. */
export function nextWhere(count: number, start: number, passes: (index: number) => boolean): number {
  for (let step = 1; step <= count; step++) {
    const index = (start + step + count) % count;
    if (passes(index)) return index;
  }
  return -1;
}
