"""The retailer's services. Each knows the events of examples/retail/events.md, and no other service."""
