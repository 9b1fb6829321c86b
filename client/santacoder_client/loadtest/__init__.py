"""The load tester: sends a known load to a service and says truthfully what came back, and when."""
