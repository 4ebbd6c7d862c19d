"""Projectors: what makes an encoder's features fit the decoder. A config chooses one by its registered name.

Shape letters: N images, P tokens of an image, E what goes in, H what comes out.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmsimple.config import AveragePoolingConfig, FeedForwardConfig, IdentityConfig, ProjectorConfig
from mmsimple.feed_forward import FeedForwardNetwork
from mmsimple.initialise import xavier


class AveragePooling(nn.Module):
    """MM1's projector: the mean of each cell of a coarser grid, then a linear layer."""

    def __init__(self, config: AveragePoolingConfig, patches: tuple[int, int]) -> None:
        super().__init__()
        self.patches, self.grid = patches, config.grid
        self.linear_layer = nn.Linear(config.input_unit, config.output_unit, config.use_bias)

    def forward(self, features: Tensor) -> Tensor:
        """[N, P, E] -> [N, rows x columns, H]."""
        grid = features.mT.reshape(len(features), -1, *self.patches)  # [N, E, rows, columns]
        out: Tensor = self.linear_layer(F.adaptive_avg_pool2d(grid, self.grid).flatten(2).transpose(1, 2))
        return out


def build_projector(config: ProjectorConfig, patches: tuple[int, int]) -> nn.Module:
    """The module of a projector; `patches` is the grid of the features that it will get."""
    match config:
        case FeedForwardConfig():
            network = FeedForwardNetwork(
                (config.input_unit, *config.layers_units),
                config.layers_activation,
                bias=config.use_bias,
                dropouts=config.layers_dropout_rates,
            )
            return xavier(network)
        case AveragePoolingConfig():
            return xavier(AveragePooling(config, patches))
        case IdentityConfig():
            return nn.Identity()


def tokens_after(config: ProjectorConfig | None, tokens: int) -> int:
    """How many tokens a projector makes of `tokens`."""
    return config.grid[0] * config.grid[1] if isinstance(config, AveragePoolingConfig) else tokens
