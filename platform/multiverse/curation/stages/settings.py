"""How rows are curated, in either mode."""

from dataclasses import dataclass, field

from multiverse.curation.stages.conversation import Asking


@dataclass(frozen=True, slots=True)
class Settings:
    """min_saving: characters that a block must take off the critical path.

    rewrite_openings: part (d) of anchored mode; rewrite mode writes every step anew.
    max_gap: nats per token above which a block is made sequential again, where there is a scorer; one that
    cannot be measured stays.
    """

    asking: Asking = field(default_factory=Asking)
    min_saving: int = 100
    rewrite_openings: bool = True
    max_gap: float = 0.5
