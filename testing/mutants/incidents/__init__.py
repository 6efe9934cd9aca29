"""Faults written by hand, each as a developer would make it; many are incidents of other job queues."""

from ..mutant import Mutant
from . import local, postgresql, rabbitmq, redis, sqlite

BY_BACKEND: dict[str, tuple[Mutant, ...]] = {
    "local": local.MUTANTS,
    "sqlite": sqlite.MUTANTS,
    "redis": redis.MUTANTS,
    "rabbitmq": rabbitmq.MUTANTS,
    "postgresql": postgresql.MUTANTS,
}
