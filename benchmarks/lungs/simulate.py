"""Simulates disease and scanner differences in chest CTs with known lung masks.

Functions take HU values, int16 or float32 (X, Y, Z), and the mask of both lungs in the same shape. Arrays
are in LPS order: x to the left, y to the back, z to the head. Disease changes voxels only inside the mask,
and never the mask itself: a consolidated lung is still lung. Terms follow the Fleischner Society's glossary
(Hansell et al. 2008, doi:10.1148/radiol.2462070712), with typical HU: ground glass -700 to -350,
consolidation, mass and collapse 0 to 100, effusion -5 to 25, air -1000.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Scan = npt.NDArray[np.float32]
Binary = npt.NDArray[np.bool_]
Weight = npt.NDArray[np.float32]
Random = np.random.Generator
Voxel = npt.NDArray[np.int64]
Spacing = tuple[float, float, float]


def field(shape: tuple[int, ...], spacing_mm: Spacing, scale_mm: float, random: Random) -> Scan:
    """A smooth random field of mean 0 and SD 1 whose bumps are about ``scale_mm`` wide; (X, Y, Z)."""
    coarse = [max(3, int(np.ceil(n * mm / scale_mm)) + 3) for n, mm in zip(shape, spacing_mm, strict=True)]
    values = random.standard_normal(coarse).astype(np.float32)
    offset = random.uniform(0, 1, 3)
    for axis, (n, mm) in enumerate(zip(shape, spacing_mm, strict=True)):
        at = np.arange(n) * mm / scale_mm + offset[axis]
        low = at.astype(int)
        part = (at - low).astype(np.float32)
        part = part * part * (3 - 2 * part)
        wide = [1, 1, 1]
        wide[axis] = -1
        part = part.reshape(wide)
        values = np.take(values, low, axis) * (1 - part) + np.take(values, low + 1, axis) * part
    return np.asarray((values - values.mean()) / (values.std() + 1e-6), dtype=np.float32)


def rough(shape: tuple[int, ...], spacing_mm: Spacing, scale_mm: float, random: Random) -> Scan:
    """A field with detail down to a quarter of ``scale_mm``."""
    whole = field(shape, spacing_mm, scale_mm, random)
    whole = whole + 0.5 * field(shape, spacing_mm, scale_mm / 2, random)
    return np.asarray(whole + 0.25 * field(shape, spacing_mm, scale_mm / 4, random), dtype=np.float32)


def soft(where: Binary, spacing_mm: Spacing, blur_mm: float) -> Weight:
    """Soft mask: 1 inside, 0 outside, blurred."""
    sigma = [blur_mm / mm for mm in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(where.astype(np.float32), sigma), dtype=np.float32)


def paint(scan: Scan, lungs: Binary, weight: Weight, hu: Scan | float) -> Scan:
    """``scan`` blended towards ``hu`` by ``weight``, only within the lungs."""
    weight = weight * lungs
    return np.asarray(scan * (1 - weight) + hu * weight, dtype=np.float32)


def _points_mm(shape: tuple[int, ...], spacing_mm: Spacing) -> list[Scan]:
    axes = [np.arange(n, dtype=np.float32) * np.float32(mm) for n, mm in zip(shape, spacing_mm, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _blob(
    centre: Voxel,
    radius_mm: float,
    shape: tuple[int, ...],
    spacing_mm: Spacing,
    random: Random,
) -> Binary:
    """A lobulated ellipsoid."""
    x, y, z = _points_mm(shape, spacing_mm)
    middle = centre * spacing_mm
    a, b, c = random.uniform(0.75, 1.25, 3) * radius_mm
    r = np.sqrt(((x - middle[0]) / a) ** 2 + ((y - middle[1]) / b) ** 2 + ((z - middle[2]) / c) ** 2)
    return np.asarray(r + 0.12 * field(shape, spacing_mm, max(radius_mm, 6.0), random) < 1)


def _any_voxel(where: Binary, random: Random) -> Voxel:
    voxels = np.argwhere(where)
    return np.asarray(voxels[random.integers(len(voxels))])


def _one_side(lungs: Binary, right: Binary, random: Random) -> Binary:
    chosen = lungs & right if random.random() < 0.5 else lungs & ~right
    return chosen if chosen.any() else lungs


def _texture(shape: tuple[int, ...], spacing_mm: Spacing, sd: float, random: Random) -> Scan:
    return sd * field(shape, spacing_mm, 4.0, random) + np.float32(10) * random.standard_normal(
        shape, dtype=np.float32
    )


def ground_glass(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Ground glass: hazy patches in which vessels remain visible."""
    share = random.uniform(0.2, 0.8)
    noise = rough(scan.shape, spacing_mm, random.uniform(25, 80), random)
    patch = noise > np.quantile(noise[lungs], 1 - share)
    hazy = random.uniform(-700, -350) + _texture(scan.shape, spacing_mm, 40, random)
    return paint(scan, lungs, soft(patch, spacing_mm, 3), np.maximum(scan, hazy))


def consolidation(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Consolidation: airless patches with air bronchograms, mostly dependent, up to most of a lung."""
    share = random.uniform(0.15, 0.7)
    _, y, z = _points_mm(scan.shape, spacing_mm)
    lean = random.uniform(-0.5, 2.0) * y / 80 - random.uniform(0, 1.5) * z / 100
    noise = rough(scan.shape, spacing_mm, random.uniform(30, 90), random) + lean
    where = lungs if random.random() < 0.4 else _one_side(lungs, right, random)
    patch = where & (noise > np.quantile(noise[where], 1 - share))
    dense = random.uniform(20, 80) + _texture(scan.shape, spacing_mm, 15, random)
    if random.random() < 0.6:
        tubes = np.abs(field(scan.shape, spacing_mm, 14, random)) < 0.07
        tubes &= np.abs(field(scan.shape, spacing_mm, 14, random)) < 0.5
        dense = np.where(tubes, np.float32(-850), dense)
    return paint(scan, lungs, soft(patch, spacing_mm, random.uniform(0.7, 3)), dense)


def effusion(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Pleural effusion on one or both sides: fluid with a level, or a crescent along the wall."""
    for side in (right, ~right):
        where = lungs & side
        if not where.any() or random.random() < 0.35:
            continue
        _, y, z = _points_mm(scan.shape, spacing_mm)
        depth = -y + random.uniform(0.0, 0.7) * z + 6 * field(scan.shape, spacing_mm, 60, random)
        depth = depth + 0.25 * ndimage.distance_transform_edt(where, sampling=spacing_mm)
        pool = where & (depth < np.quantile(depth[where], random.uniform(0.1, 0.5)))
        scan = paint(
            scan,
            lungs & side,
            soft(pool, spacing_mm, 1.0),
            random.uniform(-5, 25) + _texture(scan.shape, spacing_mm, 5, random),
        )
    return scan


def mass(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """One to three tumours of 20 to 90 mm, often at the pleura or the hilum, sometimes with a cavity."""
    edge = lungs & ~ndimage.binary_erosion(lungs, iterations=2)
    for _ in range(int(random.integers(1, 4))):
        centre = _any_voxel(edge if random.random() < 0.6 else lungs, random)
        radius = random.uniform(10, 45)
        blob = _blob(centre, radius, scan.shape, spacing_mm, random)
        hu = random.uniform(20, 90) + _texture(scan.shape, spacing_mm, 12, random)
        if random.random() < 0.2:
            hole = _blob(centre, radius * random.uniform(0.3, 0.7), scan.shape, spacing_mm, random)
            hu = np.where(hole, np.float32(-950), hu)
        scan = paint(scan, lungs, soft(blob, spacing_mm, 1.0), hu)
    return scan


def collapse(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Collapse: a lobe, or up to 90 % of one lung, without air beyond a plane."""
    where = _one_side(lungs, right, random)
    x, y, z = _points_mm(scan.shape, spacing_mm)
    direction = random.standard_normal(3) * (0.5, 1.0, 1.3)
    direction /= np.linalg.norm(direction)
    depth = direction[0] * x + direction[1] * y + direction[2] * z
    depth = depth + 5 * field(scan.shape, spacing_mm, 50, random)
    lobe = where & (depth < np.quantile(depth[where], random.uniform(0.15, 0.9)))
    dense = random.uniform(30, 100) + _texture(scan.shape, spacing_mm, 15, random)
    return paint(scan, lungs, soft(lobe, spacing_mm, 1.0), dense)


def pleural_nodules(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Three to fifteen nodules of 5 to 30 mm, most of them at the pleura."""
    edge = lungs & ~ndimage.binary_erosion(lungs)
    for _ in range(int(random.integers(3, 16))):
        centre = _any_voxel(edge if random.random() < 0.75 else lungs, random)
        radius = random.uniform(2.5, 15)
        low = np.maximum(centre - np.ceil(1.6 * radius / np.array(spacing_mm)).astype(int), 0)
        high = np.minimum(centre + np.ceil(1.6 * radius / np.array(spacing_mm)).astype(int) + 1, scan.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        blob = _blob(centre - low, radius, scan[box].shape, spacing_mm, random)
        scan = scan.copy()
        scan[box] = paint(scan[box], lungs[box], soft(blob, spacing_mm, 0.8), random.uniform(0, 90))
    return scan


def pneumothorax(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Pneumothorax: air without vessels between the wall and a smaller lung; the mask includes both."""
    where = _one_side(lungs, right, random)
    _, y, z = _points_mm(scan.shape, spacing_mm)
    up = z * random.uniform(0, 0.6) - y * random.uniform(0.2, 1)
    depth = ndimage.distance_transform_edt(where, sampling=spacing_mm) - 0.3 * (up - up.max())
    air = where & (depth < np.quantile(depth[where], random.uniform(0.1, 0.6)))
    scan = paint(scan, where, soft(where & ~air, spacing_mm, 1), scan + random.uniform(0, 200))
    hollow = -1000 + 12 * random.standard_normal(scan.shape, dtype=np.float32)
    scan = paint(scan, where, soft(air, spacing_mm, 0.8), hollow)
    # The thin line of the pleura.
    line = air & ndimage.binary_dilation(where & ~air)
    return paint(scan, where, soft(line, spacing_mm, 0.5), -500.0)


def fibrosis(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Fibrosis: a network of lines and small cysts under the pleura."""
    depth = ndimage.distance_transform_edt(lungs, sampling=spacing_mm)
    rim = np.clip(1.3 - depth / random.uniform(8, 40), 0, 1).astype(np.float32)
    net = np.abs(field(scan.shape, spacing_mm, random.uniform(5, 10), random)) < 0.45
    hu = np.where(net, random.uniform(-300, 50), random.uniform(-950, -650)).astype(np.float32)
    rim = rim * (field(scan.shape, spacing_mm, 50, random) > random.uniform(-1.5, 0.3))
    return paint(scan, lungs, ndimage.gaussian_filter(rim, 1), ndimage.gaussian_filter(hu, 0.6))


def emphysema(scan: Scan, lungs: Binary, right: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Emphysema: bullae and low-density lung."""
    bullae = rough(scan.shape, spacing_mm, random.uniform(10, 40), random)
    holes = bullae > np.quantile(bullae[lungs], random.uniform(0.5, 0.9))
    thin = np.where(scan < -600, scan - random.uniform(0, 80), scan).astype(np.float32)
    return paint(thin, lungs, 0.9 * soft(holes, spacing_mm, 1.0), -985.0) * lungs + scan * ~lungs


DISEASES: dict[str, Callable[[Scan, Binary, Binary, Spacing, Random], Scan]] = {
    "consolidation": consolidation,
    "ground_glass": ground_glass,
    "effusion": effusion,
    "mass": mass,
    "collapse": collapse,
    "pleural_nodules": pleural_nodules,
    "pneumothorax": pneumothorax,
    "fibrosis": fibrosis,
    "emphysema": emphysema,
}


def noise(scan: Scan, spacing_mm: Spacing, random: Random) -> Scan:
    """Different dose and kernel: white (sharp) to grainy (soft) noise, or a smooth reconstruction."""
    if random.random() < 0.25:
        return soft_kernel(scan, spacing_mm, random)
    white = random.standard_normal(scan.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(white, random.uniform(0, 1.2))
    return np.asarray(scan + grain / (grain.std() + 1e-6) * random.uniform(10, 120), dtype=np.float32)


def soft_kernel(scan: Scan, spacing_mm: Spacing, random: Random) -> Scan:
    """A smooth reconstruction."""
    blur = random.uniform(0.5, 2.0)
    return np.asarray(ndimage.gaussian_filter(scan, [blur / mm for mm in spacing_mm]), dtype=np.float32)


def breath(scan: Scan, lungs: Binary, random: Random) -> Scan:
    """Lower or higher lung density: a deeper or shallower breath, or a scanner that is some HU off.

    Healthy lung is -910 to -700 HU, with emphysema in deep inspiration below -950; voxels above -500 HU
    (vessels, disease) stay as they are.
    """
    thinner = random.uniform(0.25, 1.0) if random.random() < 0.6 else random.uniform(1.0, 1.8)
    share = np.clip((-500 - scan) / 200, 0, 1) * lungs
    return np.asarray(scan + share * (thinner - 1) * (scan + 1000), dtype=np.float32)


def organs(scan: Scan, lungs: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Homogeneous soft tissue outside the lungs, like liver, spleen and muscle, with or without contrast."""
    away_mm = ndimage.distance_transform_edt(~lungs, sampling=spacing_mm)
    flesh = (scan > random.uniform(-150, -20)) & (scan < 200) & (away_mm > random.uniform(0, 10))
    if random.random() < 0.7:
        flesh &= rough(scan.shape, spacing_mm, random.uniform(50, 150), random) > random.uniform(-1, 0.5)
    even = random.uniform(10, 160) + random.uniform(2, 25) * random.standard_normal(scan.shape, np.float32)
    weight = soft(flesh, spacing_mm, 1.5) * ~lungs
    return np.asarray(scan * (1 - weight) + even * weight, dtype=np.float32)


def gas(scan: Scan, lungs: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Air in stomach and bowel below the lungs, with or without a fluid level; not part of the lungs."""
    slices = np.flatnonzero(lungs.any(axis=(0, 1)))
    if not len(slices):
        return scan
    body = ndimage.binary_erosion(scan > -300, iterations=4)
    # The diaphragm and the walls of stomach and lung: some millimetres at least.
    away_mm = ndimage.distance_transform_edt(~lungs, sampling=spacing_mm)
    under = body & (away_mm > random.uniform(2.5, 7)) & (scan > -200) & (scan < 150)
    under[:, :, slices[0] + int(0.45 * len(slices)) :] = False
    # The stomach lies in front, on the left.
    x, y, _ = _points_mm(scan.shape, spacing_mm)
    for _ in range(int(random.integers(1, 7))):
        place = under
        if random.random() < 0.6:
            place = under & (x > x.max() / 2) & (y < y.max() * 0.55)
        if not place.any():
            continue
        # Near the lung it is most easily taken for it.
        centre = min((_any_voxel(place, random) for _ in range(4)), key=lambda at: away_mm[tuple(at)])
        blob = under & _blob(centre, random.uniform(8, 45), scan.shape, spacing_mm, random)
        dark = np.full(scan.shape, random.uniform(-1010, -930), np.float32)
        if random.random() < 0.5:
            level = centre[1] * spacing_mm[1] + random.uniform(-10, 20)
            dark = np.where(y > level, np.float32(random.uniform(0, 40)), dark)
        noise_hu = np.float32(12) * random.standard_normal(scan.shape, dtype=np.float32)
        weight = soft(blob, spacing_mm, 0.8) * ~lungs
        scan = np.asarray(scan * (1 - weight) + (dark + noise_hu) * weight, dtype=np.float32)
    return scan


def contrast(scan: Scan, lungs: Binary, spacing_mm: Spacing, random: Random) -> Scan:
    """Contrast medium in heart and vessels, which brightens blood by 100 to 350 HU."""
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    blood = np.zeros(scan.shape, dtype=np.float32)
    between = (scan[box] > 0) & (scan[box] < 120)
    blobs = np.clip(rough(scan[box].shape, spacing_mm, 40, random) + random.uniform(-0.5, 1), 0, 1)
    blood[box] = between * blobs
    blood = np.where(lungs, (scan > -100).astype(np.float32), blood)
    return np.asarray(scan + random.uniform(100, 350) * soft_weight(blood, spacing_mm), dtype=np.float32)


def soft_weight(weight: Weight, spacing_mm: Spacing) -> Weight:
    """``weight`` blurred by 1.5 mm."""
    return np.asarray(ndimage.gaussian_filter(weight, [1.5 / mm for mm in spacing_mm]), dtype=np.float32)


def table(scan: Scan, spacing_mm: Spacing, random: Random) -> Scan:
    """A curved couch behind the patient, for arrays in LPS order; the body stays unchanged."""
    x, y, _ = _points_mm(scan.shape, spacing_mm)
    width = x.max()
    body = scan > -300
    behind = np.flatnonzero(body.any(axis=(0, 2)))
    if not len(behind):
        return scan
    bottom = behind[-1] * spacing_mm[1] + random.uniform(2, 15)
    line = bottom - random.uniform(0, 25) * (2 * (x - width / 2) / width) ** 2
    thick = random.uniform(3, 30)
    shell = (y > line) & (y < line + thick) & (np.abs(x - width / 2) < random.uniform(0.3, 0.5) * width)
    hollow = (y > line + 3) & (y < line + thick - 3)
    hu = np.where(hollow, np.float32(random.uniform(-980, -700)), np.float32(random.uniform(-200, 300)))
    outside = ~ndimage.binary_dilation(body, iterations=1)
    return np.where((shell & outside), hu, scan).astype(np.float32)


def arms(scan: Scan, spacing_mm: Spacing, random: Random) -> Scan:
    """Arms beside the chest: cylinders of muscle with a bone, drawn only in air."""
    x, y, z = _points_mm(scan.shape, spacing_mm)
    body = ndimage.binary_opening(scan > -300, iterations=2)
    columns = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(columns):
        return scan
    air = ~ndimage.binary_dilation(scan > -300, iterations=2)
    for edge, away in ((columns[0] * spacing_mm[0], -1), (columns[-1] * spacing_mm[0], 1)):
        if random.random() < 0.3:
            continue
        radius = random.uniform(35, 60)
        cx = edge + away * random.uniform(0.2, 1.1) * radius + random.uniform(-0.2, 0.2) * z
        cy = random.uniform(0.3, 0.7) * y.max() + random.uniform(-0.3, 0.3) * z
        r = np.sqrt((x - cx) ** 2 + (y - cy) ** 2)
        arm = np.where(r < 10, np.float32(600), np.float32(40))
        scan = np.where((r < radius) & air, arm, scan).astype(np.float32)
    return scan


def round_view(scan: Scan, spacing_mm: Spacing, random: Random) -> Scan:
    """Circular reconstruction: padding of -1024, -2048 or -3024 outside a circle."""
    x, y, _ = _points_mm(scan.shape, spacing_mm)
    cx, cy = x.max() / 2 + random.uniform(-15, 15), y.max() / 2 + random.uniform(-15, 15)
    radius = min(x.max(), y.max()) / 2 * random.uniform(0.75, 1.0)
    inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    return np.where(inside, scan, np.float32(random.choice([-1024, -2048, -3024]))).astype(np.float32)


def thick_slices(scan: Scan, every: int) -> Scan:
    """Averages every ``every`` thin slices to a thick one: (X, Y, Z // every)."""
    mean = ndimage.uniform_filter1d(scan, every, axis=2)
    return np.asarray(mean[:, :, every // 2 :: every], dtype=np.float32)
