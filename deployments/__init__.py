"""Ray Serve applications: wiring and configuration only. What they serve is in the package `multiverse`."""
