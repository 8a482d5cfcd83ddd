import pytest
import torch

from voxplain.faults import SetupFault
from voxplain.training.device import choose_device


@pytest.mark.parametrize(
    ("setting", "available", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_gpu_is_used_if_available_and_allowed(monkeypatch, setting, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device(setting) == torch.device(expected)


@pytest.mark.parametrize(("built", "named"), [(None, "none"), ("12.8", "12.8")])
def test_a_missing_gpu_is_refused_in_one_line(monkeypatch, built, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(SetupFault) as fault:
        choose_device("cuda")
    message = str(fault.value)
    assert "\n" not in message
    assert message.startswith("device is cuda, but PyTorch ")
    assert torch.__version__ in message
    assert f"built for CUDA {named}" in message
    assert message.endswith("allowed here: cpu, auto")


def test_choosing_a_device_turns_tf32_off(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
