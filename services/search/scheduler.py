"""Population-based training as a scheduler of Ray Tune that keeps its members busy.

Ray Tune's own scheduler pauses every member at every boundary and starts them again one after the other; its
asynchronous form pauses whoever arrives while another waits (measured in `docs/method/pbt.md`). Here a member keeps
its worker across boundaries: it waits there for the others, is told in one message what to become, and goes on. It
gives the worker up only where more members than workers take turns.

Source: Jaderberg et al. 2017, Population Based Training of Neural Networks, arXiv:1711.09846: truncation selection,
perturb and resample.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from crossreg.core.errors import UserError
from crossreg.services.search.space import Explore
from crossreg.services.search.spec import Values

__all__ = ["PopulationScheduler"]


@dataclass
class Member:
    """What the scheduler knows of a member.

    Attributes:
        index: its place in the population.
        generation: intervals it has behind it.
        score: its last score, lower is better; infinite where it had none.
        state: id of the state it is in.
        values: of its hyperparameters, as they are set.
        waiting: at the boundary, for the others.
        gone: ended, or lost and not yet back.
    """

    index: int
    values: Values
    generation: int = 0
    score: float = math.inf
    state: str | None = None
    waiting: bool = False
    gone: bool = False


class PopulationScheduler(FIFOScheduler):
    """Exploits and explores at every interval of `crossreg.services.search.worker.TrialWorker`.

    Synchronous, all members meet at every boundary, and equal seeds decide equally; a search that is run again after
    it was killed repeats its decisions. Asynchronous, a member never waits: it compares itself with what the others
    last scored.

    Args:
        explore: makes a donor's values into the exploiting member's.
        quantile: share of the population that exploits, and of the donors, in (0, 0.5].
        synchronous: meet at boundaries.
        seed: fixes who exploits whom, and how it explores.
        log: file for one line an exploit.

    Raises:
        UserError: a quantile out of range.
    """

    def __init__(
        self,
        explore: Explore,
        quantile: float = 0.25,
        synchronous: bool = True,
        seed: int = 0,
        log: Path | None = None,
    ) -> None:
        if not 0 < quantile <= 0.5:
            raise UserError(f"quantile is {quantile!r}; it must lie in (0, 0.5]")
        super().__init__()
        self.explore, self.quantile, self.synchronous = explore, quantile, synchronous
        self.seed, self.log = seed, log
        self.members: dict[str, Member] = {}
        if log is not None:
            log.unlink(missing_ok=True)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Take a member in, for the first time or after its worker was lost."""
        config = trial.config
        member = self.members.setdefault(trial.trial_id, Member(config["trial"], dict(config["hyperparameters"])))
        member.gone = member.waiting = False

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Leave a member out until it comes back, if it does."""
        self.members[trial.trial_id].gone = True

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Leave a member out."""
        self.members[trial.trial_id].gone = True

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Leave a member out that has reached its end."""
        self.members[trial.trial_id].gone = True

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Note a member's score at its boundary; decide now where nobody waits for anybody."""
        member = self.members[trial.trial_id]
        score = result["score"]
        member.score = score if math.isfinite(score) else math.inf
        member.generation, member.state = result["training_iteration"], result["state"]
        self._put(trial, member)
        if not self.synchronous:
            donor = self._asynchronous_donor(member)
            if donor is not None:
                self._exploit(trial, member, donor)
        if self._others_want_workers(tune_controller, trial, member):
            tune_controller.pause_trial(trial, should_checkpoint=False)
            member.waiting = self.synchronous
            return str(TrialScheduler.NOOP)
        if not self.synchronous:
            return str(TrialScheduler.CONTINUE)
        member.waiting = True  # with its worker; `choose_trial_to_run` sends it on
        return str(TrialScheduler.NOOP)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Hold the generation's meeting once all have come, and say which paused member is next."""
        trials = {trial.trial_id: trial for trial in tune_controller.get_trials() if trial.trial_id in self.members}
        live = [member for member in self.members.values() if not member.gone]
        if self.synchronous and live and all(member.waiting for member in live):
            self._meet(tune_controller, trials)
        paused = [
            (self.members[key].generation, self.members[key].index, trial)
            for key, trial in trials.items()
            if trial.status == TuneTrial.PAUSED and not self.members[key].waiting
        ]
        return min(paused, key=lambda entry: entry[:2])[2] if paused else None

    def _meet(self, tune_controller: Any, trials: dict[str, TuneTrial]) -> None:
        """Let the worst become copies of the best, and send everybody on."""
        present = {key: member for key, member in self.members.items() if not member.gone}
        chosen = self._donors(list(present.values()))
        for key, member in present.items():
            if member.index in chosen:
                self._exploit(trials[key], member, chosen[member.index])
        for key, member in present.items():
            member.waiting = False
            if trials[key].status == TuneTrial.RUNNING:  # it has kept its worker
                tune_controller._schedule_trial_train(trials[key])

    def _donors(self, members: list[Member]) -> dict[int, Member]:
        """Return, by the index of each member that exploits, a copy of whom it takes over."""
        ranked = sorted(members, key=lambda member: (member.score, member.index))
        size = min(math.ceil(len(ranked) * self.quantile), len(ranked) // 2)
        best = [_copy(member) for member in ranked[:size] if math.isfinite(member.score) and member.state]
        if not best:
            return {}
        # the worst, and all that have no score at all
        losers = [m for place, m in enumerate(ranked) if place >= len(ranked) - size or not math.isfinite(m.score)]
        return {member.index: self._random(member).choice(best) for member in losers}

    def _asynchronous_donor(self, member: Member) -> Member | None:
        # only those as far as itself: a step back would cost the member more steps than the others
        known = [
            other
            for other in self.members.values()
            if other is member or (other.state is not None and other.generation >= member.generation)
        ]
        return self._donors(known).get(member.index)

    def _exploit(self, trial: TuneTrial, member: Member, donor: Member) -> None:
        values = self.explore(donor.values, self._random(member, "explore"))
        if self.log is not None:
            line = {
                "generation": member.generation,
                "member": member.index,
                "score": member.score,
                "donor": donor.index,
                "donor_score": donor.score,
                "state": donor.state,
                "hyperparameters": values,
            }
            with self.log.open("a") as file:
                file.write(json.dumps(line) + "\n")
        member.generation, member.state, member.values, member.score = (
            donor.generation,
            donor.state,
            values,
            donor.score,
        )
        self._put(trial, member)
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            actor.continue_from.remote(
                member.state, values
            )  # messages of one caller arrive in order: before the next step

    def _put(self, trial: TuneTrial, member: Member) -> None:
        """Say in the trial's configuration where it stands, for whichever worker runs it next."""
        trial.set_config({**trial.config, "state": member.state, "hyperparameters": dict(member.values)})

    def _others_want_workers(self, tune_controller: Any, trial: TuneTrial, member: Member) -> bool:
        for other in tune_controller.get_trials():
            known = self.members.get(other.trial_id)
            if known is None or known is member or known.gone or known.waiting:
                continue
            if other.status in (TuneTrial.PENDING, TuneTrial.PAUSED) and known.generation <= member.generation:
                # one whose own worker is starting needs no other: it would be given up for this one, again and again
                own = tune_controller._trial_to_actor.get(other)
                if own is None or own not in tune_controller._actor_manager.live_actors:
                    return True
        return False

    def _random(self, member: Member, purpose: str = "donor") -> random.Random:
        return random.Random(f"{self.seed}/{purpose}/{member.generation}/{member.index}")


def _copy(member: Member) -> Member:
    # a donor may itself be exploiting in the same meeting; what counts is what it was before
    return Member(member.index, dict(member.values), member.generation, member.score, member.state)
