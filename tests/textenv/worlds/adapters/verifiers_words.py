"""A taskset of verifiers and an environment with turns, as its packages have them."""

import verifiers.v1 as vf

__all__ = ["Words", "WordsEnv"]


class WordData(vf.TaskData):
    answer: str = ""


class WordTask(vf.Task[WordData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=2.0)
    async def right(self, trace):
        return float(self.data.answer in trace.last_reply)

    @vf.reward
    async def short(self, trace):
        if "raise" in trace.last_reply:
            raise RuntimeError("this reward raises")
        return -0.1 * len(trace.last_reply)

    @vf.metric
    async def turns(self, trace):
        return float(trace.num_turns)


class WordsConfig(vf.TasksetConfig):
    pass


class Words(vf.Taskset[WordTask, WordsConfig]):
    def load(self):
        for word in ("ab", "cd", "ef"):
            data = WordData(prompt=f"Reverse {word}.", answer=word[::-1], system_prompt="Be short.")
            yield WordTask(data, self.config.task)


class WordsEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class WordsEnv(vf.Env[WordsEnvConfig]):
    """Asks again, twice at most, and pays for how often it had to."""

    async def run(self, task, agents):
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            for number in (1, 2):
                if segment.terminated or task.data.answer in segment.last_reply:
                    break
                segment = await interaction.turn(f"No ({number}).")

    async def finalize(self, task, episode):
        (trace,) = episode.traces
        trace.record_reward("again", -(trace.num_turns - 1), 0.5)
