"""The project of a user: services, and tests of them with all that ``eda-core[testing]`` has."""
