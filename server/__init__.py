"""The process: settings, transports, the embedded database, commands."""
