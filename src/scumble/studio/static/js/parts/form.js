/** Forms from what the server says of a verb: one field a setting, the rarer ones folded away. */

import { el, prose, unique } from './dom.js';
import { FIELDS } from './fields.js';

/** Settings whose defaults serve nearly everybody: folded away too. */
const RARE = ['negative', 'width', 'height', 'guidance', 'steps', 'screen', 'text_scale'];

/**
 * Build the form of `verb`. `leave` names settings that the page fills in itself. The form has `values()` (those that differ from
 * their defaults), `set(values)`, `check()` (true, or it points at the first field that is wrong), `fault(refusal)` and fires `change` when anything does.
 */
export function buildForm(verb, { leave = [], fold: rare = RARE, before = [] } = {}) {
  const rows = new Map();
  const changed = () => form.dispatchEvent(new CustomEvent('edited'));
  const fields = verb.fields.filter(({ name }) => !leave.includes(name));
  const shown = fields.map((spec) => (rare.includes(spec.name) && !spec.required ? { ...spec, advanced: true } : spec));
  for (const spec of shown) rows.set(spec.name, row(spec, changed));
  const last = (spec) => (spec.type === 'bool' ? 1 : 0); // boxes to tick below what is to be said
  const plain = shown.filter((spec) => !spec.advanced).sort((one, other) => last(one) - last(other)).map((spec) => rows.get(spec.name).node);
  const folded = shown.filter((spec) => spec.advanced).map((spec) => rows.get(spec.name).node);
  const fold = el('details.fold', {}, el('summary', {}, 'More settings'), el('div.rows', {}, folded));
  const general = el('p.fault', { role: 'alert', hidden: true });
  const form = el('form.form', { noValidate: true, autocomplete: 'off' }, before, el('div.rows', {}, plain), folded.length ? fold : null, general);

  form.values = () => Object.fromEntries([...rows].filter(([, one]) => chosen(one)).map(([name, { field }]) => [name, field.get()]));
  form.set = (values) => {
    for (const [name, { field, spec }] of rows) if (name in values) field.set(values[name] ?? spec.default ?? null);
  };
  form.field = (name) => rows.get(name)?.field;
  form.clearFaults = () => {
    general.hidden = true;
    for (const { tell } of rows.values()) tell('');
  };
  form.fault = ({ message, remedy, field }) => {
    const at = rows.get(field);
    const text = [message, remedy].filter(Boolean).join(' ');
    if (at) {
      if (at.spec.advanced) fold.open = true;
      at.tell(text);
      at.field.focus();
    } else {
      general.textContent = text;
      general.hidden = false;
    }
  };
  form.check = () => {
    form.clearFaults();
    const wrong = [...rows.values()].find(({ field, spec }) => wrongness(field.get(), spec));
    if (!wrong) return true;
    form.fault({ message: wrongness(wrong.field.get(), wrong.spec), field: wrong.spec.name });
    return false;
  };
  return form;
}

/** Whether a field says something of its own: what is at its default is left to the preset. */
function chosen({ field, spec }) {
  const value = field.get();
  if (value === null || Number.isNaN(value)) return false;
  return spec.required || JSON.stringify(value) !== JSON.stringify(spec.default ?? (spec.type === 'bool' ? false : null));
}

function row(spec, changed) {
  const id = unique('field');
  const make = FIELDS[spec.type] ?? FIELDS.text;
  const field = make(spec, { id, changed });
  const help = el('p.help', { id: `${id}-help` }, prose(spec.help ?? ''));
  const fault = el('p.fault', { id: `${id}-fault`, role: 'alert', hidden: true });
  const control = field.node.matches('input, select, textarea') ? field.node : field.node.querySelector('input, select, textarea, button');
  control?.setAttribute('aria-describedby', `${id}-help ${id}-fault`);
  const label = el('label', { htmlFor: id, title: spec.help ?? '' }, spec.label, spec.unit ? el('span.unit', {}, ` ${spec.unit}`) : null);
  const node = el(`div.row.${spec.type}${spec.required ? '' : '.optional'}`, { 'data-field': spec.name }, label, field.node, spec.help ? help : null, fault);
  const tell = (text) => {
    fault.textContent = text;
    fault.hidden = !text;
    node.classList.toggle('wrong', Boolean(text));
    control?.setAttribute('aria-invalid', text ? 'true' : 'false');
  };
  field.node.addEventListener('input', () => tell(''));
  return { spec, field, node, tell };
}

/** What is wrong with a value, in a sentence, or ''. The server checks again, and more. */
function wrongness(value, { label, type, min, max, required }) {
  const empty = value === null || value === '' || (Array.isArray(value) && !value.length);
  if (empty) return required ? `${label} is missing.` : '';
  if (!['int', 'float', 'seed'].includes(type)) return '';
  if (typeof value !== 'number' || Number.isNaN(value)) return `${label} is a number.`;
  if (type !== 'float' && !Number.isInteger(value)) return `${label} is a whole number.`;
  if (min !== null && min !== undefined && value < min) return `${label} is at least ${min}.`;
  if (max !== null && max !== undefined && value > max) return `${label} is at most ${max}.`;
  return '';
}
