"""The short trainings of the integration tests."""

from tests.integration.train_gan.conftest import trained, trainer

__all__ = ["trained", "trainer"]
