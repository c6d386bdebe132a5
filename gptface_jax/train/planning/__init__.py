"""What training costs on devices that need not be there."""
