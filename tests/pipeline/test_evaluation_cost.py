"""What evaluation tasks cost, one compared with another."""

from __future__ import annotations

from metakd.pipeline.evaluation_cost import task_cost


def test_steps_images_and_known_embeddings_decide() -> None:
    def cost(shots: int, steps: list[int] | None, embedded: bool = False) -> float:
        return task_cost(5, shots, 15, steps, embedded=embedded)

    assert cost(1, None) == 80
    assert cost(1, None, embedded=True) == 4
    assert cost(1, [10]) == (15 + 40) * 10 + 75
    assert cost(1, [0, 1, 5]) == (15 + 40) * 5 + 3 * 75
    assert cost(5, [10]) == (75 + 40) * 10 + 75
