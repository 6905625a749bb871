"""The model that a caller chose: checked once, and loaded where it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike

from msmarco_qdrant.core.arguments import to_settings
from msmarco_qdrant.core.encoder_types import EncoderInfo, Prompts
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.loading import load_encoder, open_encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.encoding.options import EncoderChoices, EncoderOptions, to_encoder_options
from msmarco_qdrant.encoding.protocols import Encoder
from msmarco_qdrant.errors import UsageError


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model to load, and how to run it.

    Attributes:
        model: A directory, a name of the catalog, or a hub id; None for that of a collection, or
            the default.
        options: Device, precision and so on.
        default_model: The model without a collection.
        prompts: Its prompts; None for those of the catalog or of its configuration.
        has_options: True if the caller chose options.
    """

    model: str | PathLike[str] | None
    options: EncoderOptions
    default_model: str = DEFAULT_MODEL
    prompts: Prompts | None = None
    has_options: bool = False

    @classmethod
    def of(
        cls,
        model: str | PathLike[str] | None,
        encoder_options: EncoderChoices | None,
        default_model: str = DEFAULT_MODEL,
        prompts: Prompts | Mapping[str, str] | None = None,
        *,
        device: str | None = None,
    ) -> ModelChoice:
        """Return the choice that was made by these arguments of a public function.

        Args:
            model: The model.
            encoder_options: Its options, as an object, a dictionary or a device.
            default_model: See `ModelChoice`.
            prompts: Its prompts, as an object or a dictionary.
            device: The device without options.

        Raises:
            UsageError: For another type, an unknown field or an invalid value.
        """
        options = to_encoder_options(encoder_options, device=device)
        texts = None if prompts is None else to_settings(Prompts, prompts, "prompts")
        return cls(model, options, default_model, texts, encoder_options is not None)

    def require_instead_of(
        self, encoder: object, name: str = "encoder", *, loads_others: bool = False
    ) -> None:
        """Refuse a model, its prompts or its options together with another way to get an encoder.

        Args:
            encoder: The other way; None for this one.
            name: The argument that it was passed as.
            loads_others: True if the options are also those of other models.

        Raises:
            UsageError: If both were chosen.
        """
        if encoder is None:
            return
        if self.model is not None:
            raise UsageError(f"pass either model=... or {name}=..., not both")
        for what, chosen in (
            ("prompts", self.prompts is not None),
            ("encoder_options", self.has_options and not loads_others),
        ):
            if chosen:
                raise UsageError(f"{what} need a model to load: omit them, the encoder has its own")

    def require_one(self, encoder: object, name: str = "encoder") -> None:
        """Refuse no model and no other way to get an encoder, or both.

        Args:
            encoder: The other way; None for this one.
            name: The argument that it was passed as.

        Raises:
            UsageError: If none or both were chosen.
        """
        self.require_instead_of(encoder, name)
        if self.model is None and encoder is None:
            raise UsageError(f"pass model=... or {name}=...")

    def load(self) -> Encoder:
        """Load the model.

        Raises:
            ModelError: If it cannot be loaded.
        """
        name = self.model or self.default_model
        return load_encoder(name, prompts=self.prompts, **asdict(self.options))

    def open(self) -> Encoder:
        """Open the model; its forward pass is made by `warm_up`, or when it is needed.

        Raises:
            ModelError: If it cannot be loaded.
        """
        return open_encoder(self.model or self.default_model, self.options, self.prompts)

    def load_for(self, collection: str, stored: EncoderInfo) -> Encoder:
        """Load the model of a collection.

        Args:
            collection: Its name, for messages.
            stored: The encoder in its metadata.

        Raises:
            ModelMismatchError: If the chosen model is another one.
            ModelNotFoundError: If it cannot be loaded.
            UsageError: If the chosen prompts are others.
        """
        if self.prompts is not None and self.prompts != stored.prompts:
            raise UsageError(
                f"prompts must be the {stored.prompts} of collection '{collection}', got "
                f"{self.prompts}: omit them, or ingest into another collection"
            )
        return load_collection_encoder(collection, stored, self.model, self.options)
