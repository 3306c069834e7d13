"""A training run from above: time, device-hours, cost, energy and carbon.

    time = FLOP / (devices x peak x utilisation)            energy = devices x time x watts x PUE
    cost = devices x time x price                           carbon = energy x the grid's intensity

Sources: Narayanan et al. (2021), arXiv:2104.04473, eq. 4 (8 T P / (n X): there X counts recomputation, hence 8, not 6);
Patterson et al. (2021), arXiv:2104.10350, section 2 (PUE: what the building draws over what the computers draw).
Told in chapter 16.
"""

from dataclasses import dataclass

from bigmodel_lab.plan.tables import Device, Grid, Price, require_device
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Bill", "bill", "energy", "training_time"]


def training_time(flops, devices, peak, utilisation: float = 1.0) -> Quantity:
    """Return the time that `flops` FLOP take, as days.

    devices : how many; peak : FLOP/s of one, dense, or what one really achieves (then utilisation stays 1)
    utilisation : share of the peak, 0 to 1; MFU if the FLOP are model FLOPs, HFU if they count recomputation
    """
    F, n = number("flops", flops, "FLOP"), number("devices", devices, "device", above=0)
    top = number("peak", peak, "FLOP/s", above=0)
    share = number("utilisation", utilisation, high=1)
    if share == 0:
        raise ValueError("utilisation must be above 0: at 0 a run never ends.")
    return Q(F / (n * top * share) / 86400, "day")


def energy(device_time, power, pue: float = 1.0) -> Quantity:
    """Return kWh drawn from the grid.

    device_time : devices x time (device hour); power : W of one device, mean or thermal design power
    pue : power usage effectiveness of the building, at least 1 (1 leaves the building out, as some model cards do)
    """
    hours = number("device_time", device_time, "device * hour")
    watts = number("power", power, "W")
    return Q(hours * watts * number("pue", pue, low=1) / 1000, "kWh")


@dataclass(frozen=True)
class Bill:
    """What a run takes. `cost` and `carbon` are None where no price or grid was given."""

    flops: Quantity
    time: Quantity
    device_time: Quantity
    energy: Quantity
    cost: Quantity | None
    carbon: Quantity | None


def bill(
    flops,
    device: Device,
    devices: int,
    utilisation: float,
    *,
    dtype: str = "bf16",
    price: Price | Quantity | None = None,
    grid: Grid | Quantity | None = None,
    pue: float = 1.1,
    goodput: float = 1.0,
) -> Bill:
    """Return time, device-hours, energy, cost and carbon of a run on `devices` of `device`.

    utilisation : MFU while steps run; goodput : share of the time in which they run (see `plan.failures`)
    price : USD / (device hour), a `Price` (its middle is taken) or a quantity; grid : kgCO2e / kWh likewise
    pue : 1.1 is the value for a large data centre in Patterson et al. (2021)
    """
    require_device(device)
    good = number("goodput", goodput, high=1)
    if good == 0:
        raise ValueError("goodput must be above 0: at 0 a run never ends.")
    time = training_time(flops, devices, device.peak(dtype), utilisation) / good
    used = (time * Q(float(devices), "device")).to("device * hour")
    drawn = energy(used, device.power, pue)
    cost = carbon = None
    if price is not None:
        rate = number(
            "price", price.middle if isinstance(price, Price) else price, "USD / device / hour"
        )
        cost = Q(used.magnitude * rate, "USD")
    if grid is not None:
        rate = number("grid", grid.intensity if isinstance(grid, Grid) else grid, "kgCO2e / kWh")
        carbon = Q(drawn.magnitude * rate / 1000, "tCO2e")
    return Bill(Q(number("flops", flops, "FLOP"), "FLOP"), time, used, drawn, cost, carbon)
