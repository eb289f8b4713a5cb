"""Augmented copies of chest CTs, made on the device: shapes, diseases, tissue beside the lung, partial views.

Arrays are RAS: x to the right, y to the front, z to the head. The image is (HU + 1024) / 1300 in 0..1.
"""

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

MM = 2.0
LOW, RANGE = -1024.0, 1300.0


def unit(hu):
    return (hu - LOW) / RANGE


class Case:
    def __init__(self, name, q, t, s, device):
        self.name, self.shape, self.sp = name, q.shape, [float(v) for v in s]
        both = np.stack([q.astype(np.float32) / 255, t == 1, t == 2]).astype(np.float32)
        self.data = torch.from_numpy(both).to(device)[None]
        self.extent = [(n - 1) * v for n, v in zip(q.shape, self.sp, strict=False)]
        self.low, self.high = np.zeros(3), np.array(self.extent)
        self.lungs = bool((t > 0).any())
        if self.lungs:
            at = np.argwhere(t > 0)
            self.low, self.high = at.min(0) * self.sp, at.max(0) * self.sp
        self.side = {}
        for value in (1, 2):
            at = np.flatnonzero((t == value).any((0, 1)))
            if len(at):
                self.side[value] = at[0] * self.sp[2], at[-1] * self.sp[2]
        self.middle = (self.low + self.high) / 2
        if len(self.side) == 2:  # the middle between the inner edges, by medians of each side
            xs = [np.flatnonzero((t == v).any((1, 2))) * self.sp[0] for v in (1, 2)]
            self.middle[0] = (xs[0].min() + xs[1].max()) / 2


class Maker:
    def __init__(self, size, device, seed):
        self.size, self.device = size, device
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        axes = [(torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * MM for n in size]
        self.x, self.y, self.z = (a.view([-1 if i == k else 1 for i in range(3)]) for k, a in enumerate(axes))
        self.p = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (3, X, Y, Z)

    # fields -----------------------------------------------------------------------------------------
    def field(self, scale, channels=1, octaves=1):
        total = 0
        for k in range(octaves):
            coarse = [max(2, math.ceil(n * MM * 2**k / scale) + 1) for n in self.size]
            noise = torch.randn(1, channels, *coarse, device=self.device)
            small = [max(c, n // 4) for c, n in zip(coarse, self.size, strict=False)]
            if scale / 2**k >= 25:
                noise = F.avg_pool3d(
                    F.interpolate(noise, small, mode="trilinear"), 5, 1, 2, count_include_pad=False
                )
            total = total + 0.5**k * F.interpolate(noise, self.size, mode="trilinear")
        total = total[0]
        return total / (total.std() + 1e-6)

    def white(self):
        return torch.randn(1, *self.size, device=self.device)

    @staticmethod
    def blur(w, times=1):
        w = w.float()[None]
        for _ in range(times):
            for kernel in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
                w = F.avg_pool3d(w, kernel, 1, [k // 2 for k in kernel], count_include_pad=False)
        return w[0]

    @staticmethod
    def grown(w, times=1):
        w = w.float()[None]
        for _ in range(times):
            w = F.max_pool3d(w, 3, 1, 1)
        return w[0] > 0

    def any_of(self, where, count=1):
        at = where[0].flatten().nonzero()[:, 0]
        if not len(at):
            return None
        pick = at[torch.randint(len(at), (count,), device=self.device)].cpu().numpy()
        return np.stack(np.unravel_index(pick, self.size), 1)

    def cut(self, values, where, share):
        v = values.expand(1, *self.size)[where]
        if v.numel() > 50000:
            v = v[torch.randint(v.numel(), (50000,), device=self.device)]
        return torch.quantile(v, share)

    def blob(self, at, radii, wobble=0.15):
        c = [(i - (n - 1) / 2) * MM for i, n in zip(at, self.size, strict=False)]
        distance = (
            ((self.x - c[0]) / radii[0]) ** 2
            + ((self.y - c[1]) / radii[1]) ** 2
            + ((self.z - c[2]) / radii[2]) ** 2
        )
        return (distance.sqrt()[None] + wobble * self.field(max(min(radii), 8.0))) < 1

    def u(self, a, b):
        return float(self.rng.uniform(a, b))

    def chance(self, p):
        return self.rng.random() < p

    # geometry ---------------------------------------------------------------------------------------
    def shaped(self, case, plain=False, raised=None, flip=None):
        """Image (1, ...) and sides right, left as bool (1, ...)."""
        rng, centre = self.rng, case.middle.copy()
        p = self.p
        matrix = np.eye(3)
        flip = False if flip is None else flip
        if not plain:
            kind = rng.random()
            if kind < 0.6 and case.lungs:
                centre = centre + rng.normal(0, 18, 3)
            elif kind < 0.85:
                centre = centre + rng.normal(0, [30, 25, 90])
            else:
                centre = np.array([rng.uniform(0.35, 0.65) * e for e in case.extent])
                centre[2] = rng.uniform(0, case.extent[2])
            angles = np.radians(rng.normal(0, [7, 7, 8]))
            if self.chance(0.06):
                angles[2] += np.pi / 2 * rng.integers(1, 4)
            for k, a in enumerate(angles):
                i, j = [n for n in range(3) if n != k]
                turn = np.eye(3)
                turn[i, i] = turn[j, j] = math.cos(a)
                turn[i, j], turn[j, i] = -math.sin(a), math.sin(a)
                matrix = matrix @ turn
            scale = math.exp(rng.normal(0, 0.10)) * np.exp(rng.normal(0, 0.07, 3))
            matrix = matrix * scale[None]
            wide = self.field(110, 3) * self.u(0, 14)
            fine = self.field(45, 3) * self.u(0, 5)
            p = p + wide + fine
        if flip:
            matrix = matrix @ np.diag([-1, 1, 1])
        m = torch.tensor(matrix, dtype=torch.float32, device=self.device)
        s = torch.einsum("ij,jxyz->ixyz", m, p)
        s = s + torch.tensor(centre, dtype=torch.float32, device=self.device).view(3, 1, 1, 1)
        x, y, z = s
        if raised is None and not plain and len(case.side) == 2:
            kind = rng.random()

            def up():
                return self.u(15, 95)

            raised = (
                {1: up()}
                if kind < 0.15
                else {2: up()}
                if kind < 0.38
                else {1: up(), 2: up()}
                if kind < 0.53
                else {1: -self.u(5, 30), 2: -self.u(5, 30)}
                if kind < 0.6
                else {}
            )
        for value, height in (raised or {}).items():
            if value not in case.side:
                continue
            low, high = case.side[value]
            dome = low + self.u(0.2, 0.45) * (high - low)
            height = min(height, 0.6 * (high - dome))
            above = (high - z) / (high - dome - height)
            below = 1 - (dome + height - z) / 150.0
            away = (x - case.middle[0]) * (1 if value == 1 else -1)
            weight = torch.minimum(above, below).clamp(0, 1) * torch.sigmoid((away - self.u(5, 25)) / 11)
            z = z - height * weight
        grid = torch.stack([2 * v / e - 1 for v, e in zip((z, y, x), case.extent[::-1], strict=False)], -1)
        found = F.grid_sample(
            case.data, grid[None], mode="bilinear", padding_mode="zeros", align_corners=True
        )[0]
        image, right, left = found[:1], found[1:2] >= 0.5, found[2:3] >= 0.5
        return (image, left, right) if flip else (image, right, left)

    # paint ------------------------------------------------------------------------------------------
    def put(self, image, weight, hu):
        hu = unit(hu) if torch.is_tensor(hu) else unit(torch.tensor(hu, device=self.device))
        return image * (1 - weight) + hu * weight

    def tissue(self, hu, sd=12):
        return hu + sd * self.field(6) + 8 * self.white()

    def disease(self, image, right, left, kind):
        lungs = right | left
        where = lungs if self.chance(0.35) else (right if self.chance(0.5) else left)
        if int(where.sum()) < 3000:
            where = lungs
        y, z = self.y[None], self.z[None]
        if kind == "consolidation":
            lean = -self.u(-0.5, 2) * y / 80 - self.u(0, 1.5) * z / 100
            n = self.field(self.u(30, 90), octaves=3) + lean
            patch = where & (n > self.cut(n, where, 1 - self.u(0.1, 0.7)))
            dense = self.tissue(self.u(20, 80))
            if self.chance(0.5):
                tubes = (self.field(14).abs() < 0.08) & (self.field(14).abs() < 0.5)
                dense = torch.where(tubes, torch.tensor(-850.0, device=self.device), dense)
            return self.put(image, self.blur(patch, int(self.rng.integers(1, 4))) * lungs, dense)
        if kind == "effusion":
            for side in (right, left):
                if int(side.sum()) < 3000 or self.chance(0.35):
                    continue
                inner = F.avg_pool3d(side.float()[None], 4)
                for _ in range(3):
                    inner = F.avg_pool3d(inner, 3, 1, 1)
                inner = F.interpolate(inner, self.size, mode="trilinear")[0]
                depth = self.u(0.3, 1) * y + self.u(0, 1.2) * z + 6 * self.field(60) + self.u(0, 60) * inner
                pool = side & (depth < self.cut(depth, side, self.u(0.08, 0.55)))
                image = self.put(image, self.blur(pool) * side, self.tissue(self.u(-5, 30), 4))
            return image
        if kind == "collapse":
            d = self.rng.normal(size=3)
            d /= np.linalg.norm(d)
            depth = float(d[0]) * self.x[None] + float(d[1]) * y + float(d[2]) * z + 5 * self.field(50)
            lobe = where & (depth < self.cut(depth, where, self.u(0.1, 0.85)))
            return self.put(image, self.blur(lobe) * lungs, self.tissue(self.u(25, 100)))
        if kind in ("mass", "nodules"):
            edge = lungs & (self.blur(lungs, 2) < 0.75)
            for _ in range(1 if kind == "mass" else int(self.rng.integers(2, 6))):
                lateral = where & (self.x.abs()[None] > 55)
                at = self.any_of(edge if kind == "nodules" and self.chance(0.7) else lateral)
                if at is None:
                    continue
                size = self.u(10, 45) if kind == "mass" else self.u(3, 15)
                blob = self.blob(at[0], size * self.rng.uniform(0.75, 1.25, 3)) & lungs
                image = self.put(image, self.blur(blob) * lungs, self.tissue(self.u(0, 90)))
            return image
        if kind == "ground_glass":
            n = self.field(self.u(25, 80), octaves=3)
            patch = where & (n > self.cut(n, where, 1 - self.u(0.2, 0.9)))
            hazy = torch.maximum(image, unit(self.tissue(self.u(-700, -300), 40)))
            return image + (hazy - image) * self.blur(patch, 2) * lungs
        if kind == "pneumothorax":
            depth = -self.u(0.2, 1) * y - self.u(0, 0.6) * z + 4 * self.field(60)
            air = where & (depth < self.cut(depth, where, self.u(0.1, 0.5)))
            image = self.put(image, self.blur(where & ~air) * where * self.u(0, 0.2), 0.0)
            return self.put(image, self.blur(air) * where, -1000 + 10 * self.white())
        n = self.field(self.u(10, 40), octaves=3)
        holes = where & (n > self.cut(n, where, self.u(0.5, 0.9)))
        return self.put(image, 0.9 * self.blur(holes) * lungs, -985.0)

    def fat_pad(self, image, right, left):
        lungs = right | left
        edge = lungs & (self.blur(lungs, 2) < 0.75)
        zs = lungs[0].any(0).any(0).nonzero()
        low = edge & (self.x.abs()[None] < self.u(45, 100)) & (self.y[None] > self.u(-40, 10))
        if len(zs):
            zmm = (float(zs[0] + zs[-1]) / 2 - (self.size[2] - 1) / 2) * MM
            low = low & (self.z[None] < zmm)
        at = self.any_of(low)
        if at is None:
            return image, right, left
        blob = self.blob(at[0], self.u(12, 42) * self.rng.uniform(0.6, 1.4, 3), 0.25)
        image = self.put(image, self.blur(blob), self.u(-125, -65) + 8 * self.field(8) + 8 * self.white())
        return image, right & ~blob, left & ~blob

    def mediastinal_mass(self, image, right, left, tube=False):
        lungs = right | left
        edge = lungs & (self.blur(lungs, 2) < 0.75) & (self.x.abs()[None] < self.u(35, 65))
        zs = lungs[0].any(0).any(0).nonzero()
        if len(zs):
            a, b = (float(v) for v in (zs[0], zs[-1]))
            mid, half = ((a + b) / 2 - (self.size[2] - 1) / 2) * MM, (b - a) / 2 * MM
            edge = edge & ((self.z[None] - mid).abs() < 0.55 * half)
        if tube:
            edge = edge & (self.y[None] < 0)
        at = self.any_of(edge)
        if at is None:
            return image, right, left
        radii = self.u(12, 48) * self.rng.uniform(0.7, 1.3, 3)
        if tube:
            radii = np.array([self.u(13, 25), self.u(13, 25), self.u(50, 120)])
        blob = self.blob(at[0], radii, 0.15)
        image = self.put(
            image,
            self.blur(blob),
            self.tissue(self.u(10, 90) + (self.u(80, 200) if tube and self.chance(0.4) else 0)),
        )
        return image, right & ~blob, left & ~blob

    def gas(self, image, right, left):
        lungs = right | left
        near = self.grown(lungs, 2)
        soft = (image > unit(-200)) & (image < unit(150)) & ~near
        zs = lungs[0].any(0).any(0).nonzero()
        if len(zs):
            level = int(zs[0] + 0.45 * (zs[-1] - zs[0]))
            soft = soft & (torch.arange(self.size[2], device=self.device).view(1, 1, 1, -1) < level)
        soft = soft & (self.blur(soft, 2) > 0.9)
        for _ in range(int(self.rng.integers(1, 4))):
            at = self.any_of(soft, 4)
            if at is None:
                return image
            at = at[np.argmax(at[:, 2])]
            blob = (
                self.blob(at, self.u(8, 48) * self.rng.uniform(0.7, 1.3, 3), 0.25)
                & ~near
                & (image > unit(-200))
            )
            dark = torch.full((1, *self.size), self.u(-1010, -930), device=self.device)
            if self.chance(0.5):
                dark = torch.where(
                    self.y[None] < (at[1] - (self.size[1] - 1) / 2) * MM + self.u(-20, 10),
                    self.u(0, 40),
                    dark,
                )
            image = self.put(image, self.blur(blob) * ~near, dark + 12 * self.white())
        return image

    def fat_around(self, image, right, left):
        lungs = right | left
        ring = (
            self.grown(lungs, int(self.rng.integers(3, 8)))
            & ~lungs
            & (image > unit(-200))
            & (image < unit(160))
        )
        ring = ring & (self.field(self.u(25, 70), octaves=2) > self.u(-1, 1))
        return self.put(image, self.blur(ring) * ~lungs, self.u(-125, -60) + 10 * self.white())

    def organs(self, image, right, left):
        flesh = (
            (image > unit(self.u(-150, -20)))
            & (image < unit(200))
            & ~self.grown(right | left, int(self.rng.integers(1, 4)))
        )
        if self.chance(0.7):
            flesh = flesh & (self.field(self.u(50, 150), octaves=2) > self.u(-1, 0.5))
        return self.put(
            image, self.blur(flesh) * ~(right | left), self.u(10, 160) + self.u(2, 25) * self.white()
        )

    def contrast(self, image):
        blood = (image > unit(0)) & (image < unit(120))
        weight = (self.field(40, octaves=2) + self.u(-0.5, 1)).clamp(0, 1) * self.blur(blood)
        return image + self.u(100, 350) / RANGE * weight

    def table(self, image):
        body = self.blur(image > unit(-300), 2) > 0.6
        ys = body[0].any(2).any(0).nonzero()
        if not len(ys):
            return image
        level = (float(ys[0]) - (self.size[1] - 1) / 2) * MM - self.u(2, 20)
        line = level + self.u(0, 40) * (self.x[None] / (self.size[0] * MM / 2)) ** 2
        thick = self.u(6, 60)
        wide = self.x.abs()[None] < self.u(0.3, 0.5) * self.size[0] * MM
        shell = (self.y[None] < line) & (self.y[None] > line - thick) & wide
        hollow = (self.y[None] < line - 3) & (self.y[None] > line - thick + 3)
        outside = ~self.grown(body, 1)
        hu = torch.where(hollow, self.u(-1000, -650), self.u(-200, 300)) + 8 * self.white()
        return torch.where((shell & outside).expand_as(image), unit(hu), image)

    def cut_view(self, image, right, left):
        """A partial field of view; or none of the lungs."""
        lungs = (right | left)[0]
        keep = [[0, n] for n in self.size]
        if bool(lungs.any()):
            box = []
            for axis in range(3):
                others = [a for a in (0, 1, 2) if a != axis]
                at = lungs.any(others[1]).any(others[0]).nonzero()
                box.append((int(at[0]), int(at[-1]) + 1))
            (x0, x1), (_y0, _y1), (z0, z1) = box
            kind = self.rng.choice(
                ["bases", "top", "slab", "one", "tight", "abdomen", "between"],
                p=[0.2, 0.2, 0.15, 0.2, 0.15, 0.05, 0.05],
            )
            tall = z1 - z0
            if kind == "bases":
                keep[2][1] = z0 + max(8, int(tall * self.u(0.08, 0.6)))
            elif kind == "abdomen":
                keep[2][1] = z0
            elif kind == "top":
                keep[2][0] = z1 - max(8, int(tall * self.u(0.1, 0.6)))
            elif kind == "slab":
                thick = int(self.rng.integers(8, 45))
                keep[2][0] = z0 + int(self.rng.integers(0, max(1, tall - thick)))
                keep[2][1] = keep[2][0] + thick
            elif kind == "one":
                middle = (x0 + x1) // 2 + int(self.rng.integers(-10, 11))
                keep[0] = (
                    [max(0, x0 - int(self.rng.integers(0, 25))), middle]
                    if self.chance(0.5)
                    else [middle, min(self.size[0], x1 + int(self.rng.integers(0, 25)))]
                )
            elif kind == "tight":
                for axis, (a, b) in enumerate(box):
                    keep[axis] = [
                        max(0, a - int(self.rng.integers(-15, 15))),
                        min(self.size[axis], b + int(self.rng.integers(-15, 15))),
                    ]
            else:
                keep[0] = [x0 + int((x1 - x0) * self.u(0.1, 0.35)), x0 + int((x1 - x0) * self.u(0.65, 0.9))]
        else:
            axis = int(self.rng.integers(0, 3))
            keep[axis] = sorted(int(v) for v in self.rng.integers(0, self.size[axis], 2))
        view = torch.zeros((1, *self.size), dtype=torch.bool, device=self.device)
        view[:, keep[0][0] : keep[0][1], keep[1][0] : keep[1][1], keep[2][0] : keep[2][1]] = True
        return image * view, right & view, left & view

    def round_view(self, image, right, left):
        radius = min(self.size[0], self.size[1]) / 2 * MM * self.u(0.8, 1.15)
        view = ((self.x - self.u(-15, 15)) ** 2 + (self.y - self.u(-15, 15)) ** 2 < radius**2)[None]
        return image * view, right & view, left & view

    def scanner(self, image, right, left):
        lungs = right | left
        if self.chance(0.5):
            thinner = self.u(0.3, 1.0) if self.chance(0.5) else self.u(1.0, 1.9)
            share = ((unit(-500) - image) / (200 / RANGE)).clamp(0, 1) * lungs
            image = image + share * (thinner - 1) * (image - unit(-1000))
        if self.chance(0.15):
            k = int(self.rng.choice([3, 5]))
            image = F.avg_pool3d(image[None], (1, 1, k), 1, (0, 0, k // 2), count_include_pad=False)[0]
        if self.chance(0.25):
            image = self.blur(image, int(self.rng.integers(1, 3)))
        if self.chance(0.2):
            image = image + (image - self.blur(image)) * self.u(0.5, 2.5)
        if self.chance(0.5):
            noise = self.white()
            if self.chance(0.5):
                noise = self.blur(noise)
            image = image + noise / noise.std() * self.u(8, 110) / RANGE
        return image + float(self.rng.normal(0, 14)) / RANGE * (image > 0.005)

    DISEASES: ClassVar = {
        "consolidation": 3,
        "effusion": 3,
        "collapse": 3,
        "mass": 1.5,
        "nodules": 1,
        "ground_glass": 1.5,
        "pneumothorax": 1,
        "emphysema": 1,
    }

    def sample(self, case):
        """uint8 image and label (X, Y, Z), and voxels at which a fine patch may lie (8, 3)."""
        image, right, left = self.shaped(case)
        lungs = right | left
        count = int(lungs.sum())
        if count > 8000:
            if self.chance(0.25):
                image = self.organs(image, right, left)
            if self.chance(0.2):
                image = self.contrast(image)
            if self.chance(0.2):
                image = self.fat_around(image, right, left)
            if self.chance(0.5):
                weights = np.array(list(self.DISEASES.values()), float)
                for kind in self.rng.choice(
                    list(self.DISEASES),
                    size=int(self.rng.integers(1, 3)),
                    replace=False,
                    p=weights / weights.sum(),
                ):
                    image = self.disease(image, right, left, kind)
            if self.chance(0.25):
                for _ in range(int(self.rng.integers(1, 4))):
                    image, right, left = self.fat_pad(image, right, left)
            if self.chance(0.22):
                image, right, left = self.mediastinal_mass(image, right, left)
            if self.chance(0.15):
                image, right, left = self.mediastinal_mass(image, right, left, tube=True)
        if self.chance(0.35):
            image = self.gas(image, right, left)
        if self.chance(0.3):
            image = self.table(image)
        image = self.scanner(image, right, left)
        if self.chance(0.35):
            image, right, left = self.cut_view(image, right, left)
        if self.chance(0.2):
            image, right, left = self.round_view(image, right, left)
        lungs = right | left
        edge = self.grown(lungs, 3) & (self.blur(lungs, 1) < 0.95)
        at = self.any_of(edge, 8)
        if at is None:
            at = np.stack([self.rng.integers(0, n, 8) for n in self.size], 1)
        label = right.to(torch.uint8) + 2 * left.to(torch.uint8)
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)[0], label[0], at
