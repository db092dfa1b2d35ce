"""Where a fit runs: the worker protocol and the executors that place workers. Drivers know only `Executor`."""
