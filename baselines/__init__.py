"""The methods UniErase is compared with."""
