import { post } from '../parts/api.js';
import { shell } from '../parts/shell.js';

shell('login');

const form = document.querySelector('form');
const fault = form.querySelector('.fault');

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  fault.hidden = true;
  try {
    await post('/api/login', { password: form.password.value });
    location.assign('/generate');
  } catch (refusal) {
    fault.textContent = [refusal.message, refusal.remedy].filter(Boolean).join(' ');
    fault.hidden = false;
    form.password.select();
  }
});
