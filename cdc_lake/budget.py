"""How a sink divides `memory_mb` among what it holds at once."""

from __future__ import annotations

from dataclasses import dataclass

# The resident set of a sink at work that buffers nearly nothing: the interpreter, Arrow, DuckDB, delta-rs, the client,
# their threads and what each of them keeps for the next call.
PROCESS_BYTES = 430_000_000
# From here on nothing gets faster with more, so nothing but the buffer grows.
_PLENTY_BYTES = 830_000_000
# With less, each record would be a commit of its own.
LEAST_BYTES = 18_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for each place where a sink holds records, of which all may be full at once.

    A record is held a few times on its way: as the client's object, joined to columns, taken apart by DuckDB, as Arrow
    rows and as Parquet pages. The shares were found by measuring the peak of whole processes (`python -m benchmarks
    memory`).
    """

    buffered: int = 128_000_000
    """What waits to be decoded; the partitions are paused beyond it."""
    flush: int = 64_000_000
    """What one round of decoding and committing takes."""
    queued: int = 64 << 20
    """What the client fetches ahead."""
    polled: int = 16_000_000
    """What is taken from the client at once."""
    joined: int = 64_000_000
    """What is decoded at once."""
    kept: int = 256 << 20
    """What the allocator keeps of freed memory."""

    @classmethod
    def of(cls, memory_mb: float, flush_mb: float, sinks: int = 1) -> Budget:
        """The budget of each of so many sinks in one process."""
        room = max((memory_mb * 1_000_000 - PROCESS_BYTES) / sinks, LEAST_BYTES)
        share = min(1.0, room / _PLENTY_BYTES)
        buffered = int(AMPLE.buffered * room / _PLENTY_BYTES)
        return cls(
            buffered=buffered,
            flush=int(min(flush_mb * 1_000_000, buffered / 2)),
            queued=int(AMPLE.queued * share),
            polled=int(AMPLE.polled * share),
            joined=int(AMPLE.joined * share),
            kept=int(AMPLE.kept * share),
        )


def least_mb(sinks: int = 1) -> int:
    """The least `memory_mb` that so many sinks in one process keep to."""
    return (PROCESS_BYTES + sinks * LEAST_BYTES) // 1_000_000


AMPLE = Budget()
"""As much as helps."""
