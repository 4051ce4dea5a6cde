"""Storms: random schedules against the real service, judged step by step by a twin in plain Python.

    schedule.py   what happens: frozen events, from a seed alone
    world.py      where it happens: services over one real database, signers, orchestrators, gateways
    twin.py       what may come of it: the promises, without the service's code
    services.py   what serves: in the test's process, or (killed.py) as processes of their own that are killed
    storm.py      one run: event by event, the twin asked after each; a failure replays and is made short

`python -m tests.storm` (`make storm`) runs for half an hour with fresh seeds. A failure prints

    STORM_SEED=17 STORM_STEPS=240 STORM_PROFILE=mean

which replays it, here and in test_storm.py.
"""
