"""The cache of branches over shared prefixes, in the form that models of transformers expect.

Shape suffixes: B images, M open branches of all images together, N branches that go on, K key/value heads, S prefix
slots that a layer stores, T tokens a branch has had so far, E head width.
"""

from __future__ import annotations

import copy

from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
)

_STATES_BY_INDEX = (
    "conv_states",
    "recurrent_states",
    "has_previous_state",
    "is_conv_states_initialized",
    "is_recurrent_states_initialized",
)


class BranchLayer(DynamicLayer):
    """Keys and values of the branches' own tokens, [M, K, T, E], beside those of the prefixes, [B, K, S, E].

    `update` returns the branches' own alone. The length that the layer tells is that of prefix and own tokens together:
    from it models compute positions and masks.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, prefix: DynamicLayer, n_prefix: int) -> None:
        """
        Args:
            prefix: the layer that the prefill filled. Where attention has a window, it stores the last slots alone.
            n_prefix: slots of the prefix, padding included.
        """
        super().__init__()
        if prefix.keys is None or prefix.values is None:
            raise ValueError("the layer is empty; expected one that the prefill filled")
        self.prefix_keys, self.prefix_values = prefix.keys, prefix.values
        self.n_prefix = n_prefix

    def get_seq_length(self) -> int:
        """Slots of the prefix and of a branch's own tokens."""
        return self.n_prefix + super().get_seq_length()

    def keep(self, places_N: Tensor) -> None:
        """Goes on with the branches at these places."""
        if self.is_initialized:
            self.keys, self.values = self.keys[places_N], self.values[places_N]


def open_cache(prefix: Cache, n_prefix: int, image_M: Tensor) -> Cache:
    """A cache of branches without tokens over the prefixes of their images.

    Args:
        prefix: what the prefill filled. It stays as it is.
        n_prefix: slots of the prefix, padding included.
        image_M: the image of each branch.

    Raises NotImplementedError where a layer is of a kind that branches cannot share.
    """
    return Cache(layers=[_open_layer(layer, n_prefix, image_M) for layer in prefix.layers])


def keep_branches(cache: Cache, places_N: Tensor) -> None:
    """Goes on with the branches at these places; one that is named twice is copied."""
    for layer in cache.layers:
        if isinstance(layer, BranchLayer):
            layer.keep(places_N)
        elif isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.reorder_cache(places_N)


def _open_layer(layer: object, n_prefix: int, image_M: Tensor) -> object:
    if isinstance(layer, LinearAttentionCacheLayerMixin) and not isinstance(layer, DynamicLayer):
        return _copy_states(layer, image_M)
    if isinstance(layer, LinearAttentionCacheLayerMixin | DynamicIndexedLayer):
        raise NotImplementedError(
            f"branches cannot share a {type(layer).__name__}; expected attention or linear attention, one a layer"
        )
    if isinstance(layer, DynamicLayer) and layer.get_seq_length() == n_prefix:
        return BranchLayer(layer, n_prefix)
    # Cross-attention to the image is stored once an image and never grows. Layers that borrow keys store nothing.
    return layer


def _copy_states(layer: LinearAttentionCacheLayerMixin, image_M: Tensor) -> LinearAttentionCacheLayerMixin:
    """Linear attention's states are of constant size: each branch has its own."""
    copied = copy.copy(layer)
    for name in _STATES_BY_INDEX:
        setattr(copied, name, dict(getattr(layer, name)))
    copied.reorder_cache(image_M)
    return copied
