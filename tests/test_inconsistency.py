import numpy as np
import pytest

from dfil.explain.inconsistency import difference_ratio, difference_ratios


def _by_loops(x, gap, mask=None):
    """Slow float64 reference."""
    first, second = [], []
    frames, height, width, channels = x.shape
    for t in range(frames):
        for i in range(height):
            for j in range(width):
                if mask is not None and not mask[t, i, j]:
                    continue
                for c in range(channels):
                    if t + gap < frames:
                        first.append(abs(float(x[t + gap, i, j, c]) - float(x[t, i, j, c])))
                    if t - gap >= 0 and t + gap < frames:
                        second.append(
                            abs(
                                float(x[t + gap, i, j, c])
                                - 2 * float(x[t, i, j, c])
                                + float(x[t - gap, i, j, c])
                            )
                        )
    return np.mean(second) / np.mean(first)


@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_loop(gap, masked):
    rng = np.random.default_rng(gap)
    crops = rng.integers(
        0, 256, (8, 5, 4, 3), dtype=np.uint8
    )  # unsigned: differences must not wrap around
    mask = (rng.random((8, 5, 4)) < 0.5).astype(np.uint8) * 255 if masked else None
    assert difference_ratio(crops, gap, mask) == pytest.approx(
        _by_loops(crops, gap, mask), rel=1e-6
    )


def test_one_mask_for_all_frames():
    crops = np.random.default_rng(0).random((6, 5, 4, 1))
    mask = np.zeros((5, 4))
    mask[1:3] = 1
    assert difference_ratio(crops, 1, mask) == pytest.approx(difference_ratio(crops[:, 1:3], 1))


def test_uniform_motion_is_zero_and_independent_noise_is_root_three():
    t, _, x = np.meshgrid(np.arange(9), np.arange(4), np.arange(16), indexing="ij")
    moving_ramp = (3 * x - 2 * t)[..., None]
    assert difference_ratio(moving_ramp) == pytest.approx(0)
    white = np.random.default_rng(0).standard_normal((200, 8, 8, 3))
    for ratio in difference_ratios(white, gaps=(1, 2, 4)).values():
        assert ratio == pytest.approx(3**0.5, rel=0.01)


def test_smooth_motion_looks_rough_only_from_afar():
    t = np.arange(50)[:, None, None, None]
    phase = np.linspace(0, 6, 30)[None, :, None, None]
    ratios = difference_ratios(np.sin(0.25 * t + phase), gaps=(1, 2, 4))
    assert list(ratios) == [1, 2, 4]
    assert ratios[1] < ratios[2] < ratios[4]
    assert ratios[1] == pytest.approx(
        2 * np.sin(0.125), rel=0.03
    )  # the ratio of a sinusoid's differences


def test_nothing_changes():
    assert np.isnan(difference_ratio(np.full((5, 4, 4, 3), 7, np.uint8)))
    assert np.isnan(
        difference_ratio(np.random.default_rng(0).random((5, 4, 4, 3)), 1, np.zeros((4, 4)))
    )


@pytest.mark.parametrize(("frames", "gap"), [(2, 1), (8, 4), (5, 0)])
def test_too_short(frames, gap):
    with pytest.raises(ValueError, match=f"{frames} frames and gap {gap}"):
        difference_ratio(np.zeros((frames, 4, 4, 3)), gap)
