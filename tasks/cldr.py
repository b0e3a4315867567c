# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""English-German pairs that babel writes from CLDR, the locale data of Unicode.

They are templates filled with dates, numbers and names, not free language.
"""

from collections.abc import Callable, Iterator
import datetime
import itertools
import random

# How many distinct pairs of each kind are kept, at most. Dates alone could be
# a hundred thousand; balance makes the task more than a calendar.
PAIRS_PER_KIND = {
    'date': 7000,
    'datetime': 5000,
    'interval': 5000,
    'skeleton': 2000,
    'timedelta': 1500,
    'time': 1500,
    'number': 2000,
    'percent': 1000,
    'currency': 8000,
    'unit': 9000,
    'compound_unit': 4000,
    'list': 12000,
    'locale': 4000,
    'name': 3000,
}
# Single names cannot be told from other names: they are all for training.
TRAIN_ONLY = frozenset(('name',))

_UNITS = (
    'acceleration-meter-per-square-second', 'angle-degree', 'area-acre',
    'area-hectare', 'area-square-kilometer', 'area-square-meter',
    'digital-bit', 'digital-byte', 'digital-gigabyte', 'digital-kilobyte',
    'digital-megabyte', 'duration-century', 'duration-day', 'duration-hour',
    'duration-millisecond', 'duration-minute', 'duration-month',
    'duration-second', 'duration-week', 'duration-year', 'electric-ampere',
    'electric-volt', 'energy-calorie', 'energy-joule', 'energy-kilowatt-hour',
    'frequency-hertz', 'frequency-megahertz', 'length-centimeter',
    'length-foot', 'length-inch', 'length-kilometer', 'length-light-year',
    'length-meter', 'length-mile', 'length-millimeter', 'length-nautical-mile',
    'length-yard', 'mass-carat', 'mass-gram', 'mass-kilogram', 'mass-ounce',
    'mass-pound', 'mass-metric-ton', 'power-horsepower', 'power-kilowatt',
    'power-watt', 'pressure-hectopascal', 'pressure-millibar',
    'speed-kilometer-per-hour', 'speed-knot', 'speed-meter-per-second',
    'speed-mile-per-hour', 'temperature-celsius', 'temperature-fahrenheit',
    'temperature-kelvin', 'volume-cubic-meter', 'volume-cup', 'volume-gallon',
    'volume-liter', 'volume-milliliter', 'volume-tablespoon',
    'volume-teaspoon',
)  # pyformat: disable
_DATE_SKELETONS = (
    'yMMMd', 'yMMMEd', 'yMMMM', 'MMMMd', 'MMMEd', 'yQQQQ', 'MMMMEd', 'yMMM',
    'GyMMMd', 'Ehm', 'EHm', 'hms', 'MMMMW', 'yw',
)  # pyformat: disable


def translation_pairs() -> Iterator[tuple[str, str, str]]:
  """Yields distinct (kind, english, german), the same ones on every run.

  A sentence that has two translations keeps the first.
  """
  seen = set()
  makers = _makers()
  for kind, wanted in PAIRS_PER_KIND.items():
    make = makers[kind](random.Random(f'gqa_t5x {kind}'))
    found = 0
    # Small kinds run dry: stop after as many draws as find little new.
    for english, german in itertools.islice(make, 4 * wanted):
      english = ' '.join(english.split())  # also narrow no-break spaces
      german = ' '.join(german.split())
      if english and german and english not in seen:
        seen.add(english)
        yield kind, english, german
        found += 1
        if found == wanted:
          break


def _makers() -> dict[str, Callable[[random.Random], Iterator]]:
  return {
      'date': _dates,
      'datetime': _datetimes,
      'interval': _intervals,
      'skeleton': _skeletons,
      'timedelta': _timedeltas,
      'time': _times,
      'number': _numbers,
      'percent': _percents,
      'currency': _currencies,
      'unit': _units,
      'compound_unit': _compound_units,
      'list': _lists,
      'locale': _locales,
      'name': _names,
  }


def _both(function, *args, **kwargs) -> tuple[str, str]:
  return tuple(function(*args, locale=l, **kwargs) for l in ('en', 'de'))


def _moment(rng) -> datetime.datetime:
  return datetime.datetime(1900, 1, 1) + datetime.timedelta(
      minutes=rng.randrange(150 * 365 * 24 * 60)
  )


def _number(rng):
  """Draws a number as people write them: mostly small, some with decimals."""
  whole = rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3, 4, 5, 6)))
  return whole if rng.random() < 0.6 else whole + rng.randrange(100) / 100


def _dates(rng):
  from babel import dates
  while True:
    form = rng.choice(('full', 'full', 'long', 'medium', 'short'))
    yield _both(dates.format_date, _moment(rng).date(), format=form)


def _datetimes(rng):
  from babel import dates
  while True:
    form = rng.choice(('full', 'long', 'long', 'medium', 'short'))
    if form == 'full':  # its time zone would be UTC each time
      form = "EEEE, d. MMMM y, HH:mm"
      moment = _moment(rng)
      english = dates.format_datetime(
          moment, "EEEE, MMMM d, y, h:mm a", locale='en'
      )
      yield english, dates.format_datetime(moment, form, locale='de')
    else:
      moment = _moment(rng)
      day = _both(dates.format_date, moment.date(), format=form)
      time = _both(dates.format_time, moment.time(), format='short')
      yield f'{day[0]} at {time[0]}', f'{day[1]} um {time[1]}'


def _intervals(rng):
  from babel import dates
  while True:
    start = _moment(rng).date()
    end = start + datetime.timedelta(days=rng.choice((1, 3, 9, 40, 90, 700)))
    skeleton = rng.choice(('yMMMd', 'yMMMEd', 'MMMd', 'yMMMM', 'MMMEd', 'yMd'))
    yield _both(dates.format_interval, start, end, skeleton=skeleton)


def _skeletons(rng):
  from babel import dates
  while True:
    skeleton = rng.choice(_DATE_SKELETONS)
    try:
      yield _both(dates.format_skeleton, skeleton, _moment(rng))
    except KeyError:
      continue  # this version's CLDR lacks the skeleton in one language


def _timedeltas(rng):
  from babel import dates
  while True:
    unit = rng.choice(('second', 'minute', 'hour', 'day', 'week', 'month',
                       'year'))  # pyformat: disable
    seconds = dict(dates.TIMEDELTA_UNITS)[unit]
    count = rng.randrange(1, 100) * rng.choice((1, -1))
    yield _both(
        dates.format_timedelta,
        datetime.timedelta(seconds=seconds * count),
        granularity=unit,
        threshold=1e9 if rng.random() < 0.7 else 0.85,
        add_direction=rng.random() < 0.7,
    )


def _times(rng):
  from babel import dates
  while True:
    form = rng.choice(('medium', 'short'))
    yield _both(dates.format_time, _moment(rng).time(), format=form)


def _numbers(rng):
  from babel import numbers
  while True:
    value = _number(rng) * rng.choice((1, 1, 1, -1))
    if rng.random() < 0.5:
      value *= rng.choice((1000, 1_000_000))
      yield _both(
          numbers.format_compact_decimal, value, format_type='long',
          fraction_digits=1,
      )  # pyformat: disable
    else:
      yield _both(numbers.format_decimal, value)


def _percents(rng):
  from babel import numbers
  while True:
    value = rng.randrange(2000) / rng.choice((100, 1000))
    yield _both(numbers.format_percent, value, format='#,##0.# %')


def _currencies(rng):
  from babel import numbers
  common = ('EUR', 'USD', 'GBP', 'CHF', 'JPY', 'CNY', 'INR', 'SEK', 'PLN')
  known = sorted(_shared_names('currencies'))
  while True:
    code = rng.choice(common if rng.random() < 0.3 else known)
    form = rng.choice(('name', 'name', 'name', 'standard'))
    yield _both(
        numbers.format_currency, _number(rng), code, format_type=form
    )


def _units(rng):
  from babel import units
  while True:
    length = rng.choice(('long', 'long', 'long', 'short'))
    try:
      yield _both(
          units.format_unit, _number(rng), rng.choice(_UNITS), length=length
      )
    except units.UnknownUnitError:
      continue  # another version of CLDR


def _compound_units(rng):
  from babel import units
  per = ('duration-hour', 'duration-day', 'duration-second', 'mass-kilogram',
         'length-meter', 'volume-liter')  # pyformat: disable
  while True:
    try:
      pair = _both(
          units.format_compound_unit, _number(rng), rng.choice(_UNITS),
          denominator_unit=rng.choice(per), length='long',
      )  # pyformat: disable
    except units.UnknownUnitError:
      continue
    if all(pair):
      yield pair


def _lists(rng):
  from babel import dates
  from babel import lists
  months = _both(dates.get_month_names, 'wide')
  days = _both(dates.get_day_names, 'wide')
  groups = [
      [(months[0][m], months[1][m]) for m in months[0]],
      [(days[0][d], days[1][d]) for d in days[0]],
      *(
          [names[code] for code in sorted(names)]
          for names in map(
              _shared_names,
              ('languages', 'territories', 'territories', 'currencies'),
          )
      ),
  ]
  while True:
    members = rng.sample(rng.choice(groups), rng.randrange(2, 5))
    style = rng.choice(('standard', 'standard', 'or'))
    yield tuple(
        lists.format_list([m[i] for m in members], style=style, locale=l)
        for i, l in enumerate(('en', 'de'))
    )


def _locales(rng):
  languages = _shared_names('languages')
  territories = _shared_names('territories')
  while True:
    language = languages[rng.choice(sorted(languages))]
    territory = territories[rng.choice(sorted(territories))]
    yield tuple(f'{language[i]} ({territory[i]})' for i in (0, 1))


def _names(rng):
  for kind in ('languages', 'territories', 'currencies', 'scripts'):
    pairs = sorted(_shared_names(kind).items())
    rng.shuffle(pairs)
    yield from (pair for _, pair in pairs)


def _shared_names(kind: str) -> dict[str, tuple[str, str]]:
  """Returns {code: (English, German)} of what both languages name."""
  import babel
  english = getattr(babel.Locale('en'), kind)
  german = getattr(babel.Locale('de'), kind)
  return {
      code: (english[code], german[code])
      for code in english
      if code in german and code not in ('ZZ', 'XXX')
  }
