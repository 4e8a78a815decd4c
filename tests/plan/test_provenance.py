"""What a result says that it came from."""

from __future__ import annotations

from gatekit.provenance import by_name


def test_hashes_by_name_tell_files_of_one_name_apart():
    """Wan's two experts are shards of the same names in two folders; no whole path is told."""
    shard = "model-00001-of-00002.safetensors"
    found = by_name(
        {
            f"/home/me/wan/high_noise_model/{shard}": "1",
            f"/home/me/wan/low_noise_model/{shard}": "2",
            "/home/me/a/wan/vae.pth": "3",
            "/home/me/b/wan/vae.pth": "4",
            "/home/me/umt5.gguf": "5",
        }
    )
    assert found == {
        f"high_noise_model/{shard}": "1",
        f"low_noise_model/{shard}": "2",
        "a/wan/vae.pth": "3",
        "b/wan/vae.pth": "4",
        "umt5.gguf": "5",
    }
