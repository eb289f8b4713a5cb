"""The recipe's section ``loss``: one class per kind, so that every field has an effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from medseg.recipe.section import Fraction, NotNegative, Positive, Section


class _Weighted(Section):
    class_weights: dict[str, NotNegative] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something_counts(self) -> _Weighted:
        parts = self._parts()
        if parts and not any(getattr(self, name) for name in parts):
            raise ValueError(f"{' and '.join(parts)} are all 0: nothing would be learned")
        return self

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        """Names of the weights; at least one of them must be above 0."""
        return ()


class _WithDice(_Weighted):
    batch_dice: bool = True

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before this field existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        if self.batch_dice:
            data.pop("batch_dice", None)
        return data


class DiceBCE(_WithDice):
    """Dice and binary cross-entropy with one sigmoid channel per label: labels may overlap.

    As in nnU-Net's region training (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named.
        dice_weight: Weight of the Dice part.
        bce_weight: Weight of the cross-entropy part.
        batch_dice: Whether Dice is computed over all patches of a batch together, so that a patch without the
            label does not dominate, or for each patch. nnU-Net's plans decide by configuration.
    """

    kind: Literal["dice_bce"] = "dice_bce"
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        return "dice_weight", "bce_weight"


class DiceCE(_WithDice):
    """Dice and cross-entropy of a softmax over background and mutually exclusive labels.

    nnU-Net's default (Isensee et al. 2021). Each voxel of the mask gets its most probable class.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named and for the background.
        dice_weight: Weight of the Dice part.
        ce_weight: Weight of the cross-entropy part.
        batch_dice: Whether Dice is computed over all patches of a batch together, so that a patch without the
            label does not dominate, or for each patch. nnU-Net's plans decide by configuration.
    """

    kind: Literal["dice_ce"]
    dice_weight: NotNegative = 1.0
    ce_weight: NotNegative = 1.0

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        return "dice_weight", "ce_weight"


class BCE(_Weighted):
    """Binary cross-entropy alone, the loss of the original U-Net (Ronneberger et al. 2015, equation 1).

    The article's softmax over two classes equals a sigmoid of the difference of their logits.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named.
    """

    kind: Literal["bce"]


class Tversky(_Weighted):
    """Dice with unequal weights of false positives and negatives (Salehi et al. 2017, arXiv:1706.05721).

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named.
        false_positives: Alpha; alpha = beta = 0.5 gives Dice.
        false_negatives: Beta; the article's best value for small lesions is 0.7.
        gamma: The loss is raised to 1 / gamma, so that poorly segmented labels count more (focal Tversky,
            Abraham and Khan 2019, arXiv:1810.07842, equation 4; their best value is 4/3). 1 is plain Tversky.
    """

    kind: Literal["tversky"]
    false_positives: NotNegative = 0.3
    false_negatives: NotNegative = 0.7
    gamma: Annotated[float, Field(ge=1, le=3)] = 1.0

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        return "false_positives", "false_negatives"


class Focal(_Weighted):
    """Cross-entropy that down-weights well-classified voxels (Lin et al. 2017, arXiv:1708.02002).

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named.
        gamma: Strength of the down-weighting; the article's best value is 2.
        alpha: Weight of a label's voxels; all others have weight 1 - alpha (equation 5). The
            article's best value with gamma 2 is 0.25. None weights all voxels equally.
    """

    kind: Literal["focal"]
    gamma: NotNegative = 2.0
    alpha: Fraction | None = None


class BorderBCE(_Weighted):
    """Cross-entropy with higher weights in narrow gaps between structures.

    Ronneberger et al. 2015, equation 2.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.training.losses`.
        class_weights: Weights of labels, by name; 1 for labels not named.
        border_weight: The article's w0.
        sigma_voxels: The article's sigma, in voxels of the prepared patch.
    """

    kind: Literal["border_bce"]
    border_weight: NotNegative = 10.0
    sigma_voxels: Positive = 5.0


def _dice_bce_by_default(data: Any) -> Any:
    return {"kind": "dice_bce", **data} if isinstance(data, dict) else data


Loss = Annotated[
    Annotated[DiceBCE | DiceCE | BCE | Tversky | Focal | BorderBCE, Field(discriminator="kind")],
    BeforeValidator(_dice_bce_by_default),
]
"""Any kind of loss; a section without ``kind`` is a ``dice_bce``."""
