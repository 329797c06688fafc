"""Planning a labelling pool that a cluster can really schedule."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import PoolPlan, ReadTasks, plan_pool
from pipeline.errors import ClusterError
from pipeline.settings.labelling import ComingNodes, LabelSettings


def plan(*nodes: tuple[int, int], **changed: object) -> PoolPlan:
    """The pool for nodes of so many CPUs and GPUs."""
    return plan_pool([Node(*node) for node in nodes], LabelSettings(**changed))  # type: ignore[arg-type]


def fits(nodes: list[tuple[int, int]], pool: PoolPlan) -> bool:
    """Whether Ray can place all actors, each on one node and each share of a GPU on one GPU, and then a read task.

    Actors are placed one by one, wherever one fits: all are alike, so that any order fills the nodes alike.
    """
    free = [[n_cpus, [1.0] * n_gpus] for n_cpus, n_gpus in nodes]
    for _ in range(pool.n_actors):
        for node in free:
            if node[0] >= pool.cpus_per_actor and _take_gpus(node[1], pool.gpus_per_actor):
                node[0] -= pool.cpus_per_actor
                break
        else:
            return False
    return any(n_cpus >= 1 for n_cpus, _ in free)


def _take_gpus(gpus: list[float], share: float) -> bool:
    if share >= 1:
        whole = [number for number, left in enumerate(gpus) if left == 1.0][: int(share)]
        if len(whole) < share:
            return False
        for number in whole:
            gpus[number] = 0.0
        return True
    for number, left in enumerate(gpus):
        if left >= share - 1e-6:
            gpus[number] = left - share
            return True
    return share == 0


class TestCpus:
    """Machines without GPUs."""

    @pytest.mark.parametrize(
        ("n_cpus", "n_actors", "cpus_per_actor", "n_threads"), [(2, 1, 1, 2), (4, 1, 3, 4), (8, 1, 3, 8), (16, 3, 3, 5)]
    )
    def test_one_machine_is_filled_and_has_a_cpu_left(
        self, n_cpus: int, n_actors: int, cpus_per_actor: int, n_threads: int
    ) -> None:
        pool = plan((n_cpus, 0))
        assert (pool.n_actors, pool.cpus_per_actor, pool.n_threads) == (n_actors, cpus_per_actor, n_threads)

    def test_a_single_cpu_is_an_error_that_says_so(self) -> None:
        with pytest.raises(ClusterError, match=r"1 labelling actors of 1 CPUs .* 1 CPUs and 0 GPUs .* at most 0 do"):
            plan((1, 0))

    def test_every_machine_of_a_cluster_gets_an_actor(self) -> None:
        assert plan((4, 0), (4, 0), (4, 0)).n_actors == 3

    def test_single_cpus_together_label_and_leave_one_for_reading(self) -> None:
        assert plan((1, 0), (1, 0), (1, 0), (1, 0)).n_actors == 3

    def test_the_threads_of_an_actor_are_not_more_than_its_machine_has(self) -> None:
        assert plan((4, 0), (4, 0), (4, 0), actors=1).n_threads == 4

    def test_they_compute_in_float32_and_small_batches(self) -> None:
        pool = plan((4, 0))
        assert (pool.device, pool.dtype, pool.gpus_per_actor, pool.batch_size) == ("cpu", "float32", 0.0, 16)


class TestGpus:
    """Machines with GPUs."""

    @pytest.mark.parametrize(
        ("node", "n_actors", "cpus_per_actor"), [((16, 1), 1, 7), ((96, 8), 8, 5), ((4, 1), 1, 1), ((8, 8), 7, 1)]
    )
    def test_each_gpu_gets_an_actor_as_far_as_the_cpus_go(
        self, node: tuple[int, int], n_actors: int, cpus_per_actor: int
    ) -> None:
        pool = plan(node)
        assert (pool.n_actors, pool.cpus_per_actor, pool.gpus_per_actor) == (n_actors, cpus_per_actor, 1.0)

    def test_they_compute_in_bfloat16_and_large_batches(self) -> None:
        pool = plan((16, 1))
        assert (pool.device, pool.dtype, pool.batch_size) == ("cuda", "bfloat16", 64)

    def test_machines_without_gpus_read(self) -> None:
        assert plan((1, 1), (64, 0)).n_actors == 1

    def test_the_cpus_of_another_machine_do_not_help_a_gpu(self) -> None:
        # Four GPUs beside two CPUs take two actors, however many CPUs there are elsewhere.
        assert plan((2, 4), (64, 0)).n_actors == 2
        with pytest.raises(ClusterError, match="at most 2 do"):
            plan((2, 4), (64, 0), actors=3)

    @pytest.mark.parametrize(("share", "n_actors"), [(0.5, 4), (0.4, 4), (0.3, 6), (0.1, 20), (2, 1)])
    def test_a_share_of_a_gpu_is_not_split_over_two(self, share: float, n_actors: int) -> None:
        assert plan((200, 2), gpus_per_actor=share).n_actors == n_actors

    def test_a_cluster_whose_machines_have_too_few_gpus_is_an_error(self) -> None:
        with pytest.raises(ClusterError, match="of 1 CPUs and 2 GPUs do not fit 2 nodes"):
            plan((16, 1), (16, 1), gpus_per_actor=2)


class TestRequests:
    """What the settings ask for."""

    def test_as_many_actors_as_asked_for_are_planned(self) -> None:
        assert plan((16, 0), actors=2).n_actors == 2

    def test_too_many_actors_are_an_error_that_says_how_many_fit(self) -> None:
        with pytest.raises(ClusterError, match=r"6 labelling actors .* do not fit .* at most 5 do, see --actors"):
            plan((16, 0), actors=6)

    def test_batch_size_and_dtype_are_taken_over(self) -> None:
        pool = plan((16, 1), batch_size=5, dtype="float16")
        assert (pool.batch_size, pool.dtype) == (5, "float16")


class TestChosenNodes:
    """Labels and custom resources that say which nodes label."""

    READER = Node(8, 0, labels={"zone": "a"})
    LABELLER = Node(4, 0, {"gpu_node": 2.0}, {"zone": "b"})

    def test_only_nodes_with_the_resource_label(self) -> None:
        settings = LabelSettings(actor_resources={"gpu_node": 1})
        pool = plan_pool([self.READER, self.LABELLER], settings)
        assert (pool.n_actors, pool.cpus_per_actor, pool.resources) == (1, 3, {"gpu_node": 1})

    def test_a_nodes_resource_takes_no_more_actors_than_it_has_shares(self) -> None:
        node = Node(100, 0, {"gpu_node": 2.0})
        assert plan_pool([node], LabelSettings(actor_resources={"gpu_node": 0.5}, actors=4)).n_actors == 4
        with pytest.raises(ClusterError, match=r"and 0\.5 gpu_node do not fit 1 nodes .* at most 4 do"):
            plan_pool([node], LabelSettings(actor_resources={"gpu_node": 0.5}, actors=5))

    @pytest.mark.parametrize(
        ("wanted", "cpus"), [("b", 3), ("!a", 3), ("in(b, c)", 3), ("!in(a, c)", 3), ("in(a,b)", 3), ("a", 3)]
    )
    def test_only_nodes_with_the_label_label(self, wanted: str, cpus: int) -> None:
        small = Node(1, 0, labels={"zone": "c"})
        pool = plan_pool([self.READER, self.LABELLER, small], LabelSettings(label_selector={"zone": wanted}))
        assert (pool.cpus_per_actor, pool.label_selector) == (cpus, {"zone": wanted})

    def test_gpus_of_nodes_without_the_label_do_not_count(self) -> None:
        nodes = [Node(16, 4, labels={"zone": "a"}), Node(16, 1, labels={"zone": "b"})]
        assert plan_pool(nodes, LabelSettings(label_selector={"zone": "b"})).n_actors == 1

    def test_labels_that_no_node_has_are_an_error_that_names_them(self) -> None:
        with pytest.raises(ClusterError, match=r"on nodes with zone = z, do not fit 2 nodes .* at most 0 do"):
            plan_pool([self.READER, self.LABELLER], LabelSettings(label_selector={"zone": "z"}))


class TestGrowth:
    """Pools that grow, and clusters that do."""

    def test_a_pool_has_a_fixed_size_by_default(self) -> None:
        pool = plan((16, 0))
        assert (pool.min_actors, pool.n_actors) == (3, 3)

    @pytest.mark.parametrize(
        ("given", "bounds"),
        [({"min_actors": 2}, (2, 3)), ({"max_actors": 2}, (1, 2)), ({"min_actors": 4, "max_actors": 5}, (4, 5))],
    )
    def test_a_pool_grows_within_its_bounds(self, given: dict[str, int], bounds: tuple[int, int]) -> None:
        pool = plan((16, 0), **given)
        assert (pool.min_actors, pool.n_actors) == bounds

    @pytest.mark.parametrize("given", [{"min_actors": 6}, {"max_actors": 6}])
    def test_bounds_that_do_not_fit_are_an_error(self, given: dict[str, int]) -> None:
        with pytest.raises(ClusterError, match=r"6 labelling actors .* do not fit .* at most 5 do"):
            plan((16, 0), **given)

    def test_nodes_to_come_label_with_what_they_will_have(self) -> None:
        pool = plan((2, 0), nodes_to_come=ComingNodes(count=3, cpus=16, gpus=2), max_actors=6)
        assert (pool.device, pool.n_actors, pool.gpus_per_actor) == ("cuda", 6, 1.0)

    def test_nodes_to_come_have_the_labels_and_resources_that_are_asked_for(self) -> None:
        chosen = {"label_selector": {"zone": "b"}, "actor_resources": {"gpu_node": 1}}
        assert plan((2, 0), nodes_to_come=ComingNodes(count=3, cpus=4), **chosen).n_actors == 3

    def test_more_than_the_nodes_to_come_take_is_an_error(self) -> None:
        with pytest.raises(ClusterError, match=r"7 labelling actors .* at most 6 do"):
            plan((2, 0), nodes_to_come=ComingNodes(count=3, cpus=16, gpus=2), max_actors=7)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 1, 2, 4, 8])), min_size=1, max_size=5),
    st.integers(0, 40),
    st.sampled_from([0.1, 0.25, 0.3, 1 / 3, 0.4, 0.5, 1.0, 2.0, 4.0]),
)
def test_a_plan_always_fits_each_node_and_leaves_a_cpu_for_reading(
    nodes: list[tuple[int, int]], actors: int, share: float
) -> None:
    try:
        pool = plan(*nodes, actors=actors, gpus_per_actor=share)
    except ClusterError:
        return
    assert pool.n_actors == actors or not actors
    assert fits(nodes, pool)
    assert 1 <= pool.n_threads <= max(n_cpus for n_cpus, _ in nodes)


class TestReadTasks:
    """Tasks that decode what they read."""

    @pytest.mark.parametrize(
        ("nodes", "n_shards", "n_cpus", "most"),
        [
            # As many shards as free CPUs or more: a CPU each.
            ([(16, 1)], 100, 1, 14),
            ([(16, 1), (64, 0)], 78, 1, 78),
            # Few shards: several CPUs each, at most eight.
            ([(16, 1)], 7, 2, 7),
            ([(16, 1)], 2, 7, 2),
            ([(16, 1), (64, 0)], 1, 8, 9),
            # Free CPUs that lie apart: no more than a node has.
            ([(3, 1), (3, 0), (3, 0)], 1, 3, 2),
        ],
    )
    def test_they_keep_the_free_cpus_busy(
        self, nodes: list[tuple[int, int]], n_shards: int, n_cpus: int, most: int
    ) -> None:
        assert plan(*nodes, decode_in="read").free.read_tasks(n_shards, decode=True) == ReadTasks(n_cpus, most)

    def test_those_that_only_read_take_a_cpu_each_and_none_of_an_actor(self) -> None:
        assert plan((16, 1)).free.read_tasks(2, decode=False) == ReadTasks(1, 9)

    def test_an_actor_that_does_not_decode_leaves_its_cpus_to_them(self) -> None:
        pools = [plan((16, 1), decode_in=place) for place in ("read", "actor", "auto")]
        assert [(pool.cpus_per_actor, pool.free.n_all) for pool in pools] == [(2, 14), (7, 9), (7, 9)]

    def test_cpus_of_nodes_without_actors_are_elsewhere(self) -> None:
        assert plan((16, 1), (64, 0)).free.n_elsewhere == 64
        assert plan((16, 1)).free.n_elsewhere == 0
        reader, labeller = TestChosenNodes.READER, TestChosenNodes.LABELLER
        assert plan_pool([reader, labeller], LabelSettings(actor_resources={"gpu_node": 1})).free.n_elsewhere == 8


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, 0, 1, 2, 4])), min_size=1, max_size=5),
    st.integers(0, 20),
    st.integers(1, 60),
    st.randoms(),
)
def test_one_that_runs_never_waits_for_cpus_wherever_ray_puts_the_actors(
    nodes: list[tuple[int, int]], actors: int, n_shards: int, chance: random.Random
) -> None:
    try:
        pool = plan(*nodes, actors=actors, decode_in="read")
    except ClusterError:
        return
    tasks = pool.free.read_tasks(n_shards, decode=True)
    free = _placed_at_random(nodes, pool, chance)
    assert pool.n_actors * pool.cpus_per_actor + tasks.n_cpus <= sum(n_cpus for n_cpus, _ in nodes)
    assert sum(n_cpus // tasks.n_cpus for n_cpus in free) >= tasks.most >= 1


def _placed_at_random(nodes: list[tuple[int, int]], pool: PoolPlan, chance: random.Random) -> list[int]:
    """CPUs that the actors leave on each node."""
    free = [[n_cpus, [1.0] * n_gpus] for n_cpus, n_gpus in nodes]
    for _ in range(pool.n_actors):
        order = list(free)
        chance.shuffle(order)
        for node in order:
            if node[0] >= pool.cpus_per_actor and _take_gpus(node[1], pool.gpus_per_actor):
                node[0] -= pool.cpus_per_actor
                break
    return [n_cpus for n_cpus, _ in free]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1, 4])), min_size=1, max_size=4))
def test_a_cluster_with_two_cpus_for_every_gpu_is_never_refused(nodes: list[tuple[int, int]]) -> None:
    roomy = [(n_cpus + 2 * n_gpus, n_gpus) for n_cpus, n_gpus in nodes]
    assume(sum(n_cpus for n_cpus, _ in roomy) >= 2)
    assert plan(*roomy).n_actors >= 1
