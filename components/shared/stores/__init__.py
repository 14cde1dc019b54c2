"""Object stores: addresses, credentials, and one module for each client, behind the protocol `ObjectStore`."""
